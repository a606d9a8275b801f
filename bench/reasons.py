"""Why does SRE stay behind where it does, and which of its answers change as the image turns?

Asked of networks that are trained, about training and validation images alone. A network that is
wrong about the very images it was trained on, shown as they are, has not learned them: its form, or
its training, does not let it. One that is right about these and wrong about validation images has
learned them and does not carry over. And a network's answer to an image changes where turning moves
its probabilities further than the first class leads the second: how far they move is one question,
how wide the lead another.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from bench.harness import RESULTS_DIR, ROOT, circumstances, write_results
from sre.checkpoints import load_card
from sre.commands.common import add_data_dir
from sre.data.split import Split
from sre.data.store import load_split
from sre.data.table import find_dataset
from sre.errors import SREError
from sre.evaluation import FEW_ANGLES_DEG
from sre.home import DATA, SWEEP
from sre.protocols import find_protocol
from sre.studies.answering import answers_over
from sre.studies.contenders import load_contenders
from sre.studies.evaluate_run import choose_images
from sre.studies.sweep_file import read_sweep

# Each sweep's arms that are asked.
FILES = {
    "accuracy": ("sre", "sre-rotated", "plain-rotated"),
    "fine": ("sre-wide-fine", "cnn-turned"),
}
MOST_IMAGES = 500  # of a split
UNSURE = 0.25  # the share of images with the narrowest leads


def main(arguments: Sequence[str] | None = None) -> int:
    """Ask the networks that are there, and write bench/results/reasons.json."""
    parser = argparse.ArgumentParser(prog="python -m bench.reasons", description=__doc__)
    parser.add_argument("--folder", type=Path, default=SWEEP, help="of the sweeps' checkpoints")
    add_data_dir(parser, os.environ.get("SRE_DATA_DIR") or DATA)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    path = RESULTS_DIR / "reasons.json"
    # Networks of an earlier file that are not in the folder stay as they were.
    datasets = json.loads(path.read_text("utf-8"))["datasets"] if path.is_file() else {}
    began, asked = circumstances(), []
    titles: dict[str, str] = {}
    for file, names in FILES.items():
        sweep = read_sweep(ROOT / "bench" / f"{file}.toml")
        titles |= {name: sweep.arm(name).title for name in names}
        asked += [run for run in sweep.runs() if run.arm in names]
    there = [run for run in asked if (args.folder / run.file_name).is_file()]
    for run in tqdm(there, unit="network", disable=None):
        checkpoint = args.folder / run.file_name
        card, seed = load_card(checkpoint), str(run.config.seed)
        of_arm = datasets.setdefault(run.dataset, {}).setdefault(run.arm, {})
        if of_arm.get(seed, {}).get("fingerprint") == card.fingerprint:
            continue
        of_arm[seed] = {"fingerprint": card.fingerprint, "width": card.width} | measure(
            checkpoint, args.data_dir
        )
        found = {"images": MOST_IMAGES, "angles_deg": FEW_ANGLES_DEG, "unsure": UNSURE}
        found |= {"titles": titles, "datasets": datasets}
        write_results("reasons", began | found)
    print(f"{len(there)} networks; see {path}")
    return 0


def measure(checkpoint: Path, data_dir: Path) -> dict[str, Any]:
    """Ask one network about training and validation images as they are, and turned."""
    card = load_card(checkpoint)
    (who,) = load_contenders([checkpoint], find_dataset(card.dataset), find_protocol(card.protocol))
    found: dict[str, Any] = {}
    for name in ("train", "val"):
        split = some_of(load_split(card.dataset, name, data_dir=data_dir))
        probability = answers_over(who, split, card.protocol, FEW_ANGLES_DEG)
        right = probability.argmax(-1) == split.labels
        found[name] = {
            "images": len(split.labels),
            "upright": float(right[0].mean()),
            "turned": float(right.mean()),
        }
    # The last split is that of validation images: none of them was learned.
    return found | {"changes": changes(probability, split.labels)}


def some_of(split: Split) -> Split:
    """Take so many images of a split as are asked about, always the same."""
    chosen = choose_images(split, MOST_IMAGES)
    if len(chosen) == len(split):
        return split
    return Split(images=split.images[chosen], labels=split.labels[chosen])


def changes(probability: np.ndarray, labels: np.ndarray) -> dict[str, float | None]:
    """Tell which answers change off the grid, where no network is exact, and what moves them.

    Args: probability (angles, images, classes) at FEW_ANGLES_DEG; labels (images,)
    Returns:
        changed: share of answers, over images and angles, that differ from the upright one
        of_unsure: share of these that is of the quarter of images with the narrowest leads
        stays_if_sure: share of answers that stay, among the other images
        moved: how far probabilities move, as half the sum of absolute differences, mean
        lead: how far the first class leads the second, upright, median
        wrong: share of changed answers whose image got a wrong answer upright
    """
    off_grid = [i for i, angle in enumerate(FEW_ANGLES_DEG) if angle % 90]
    upright, turned = probability[0], probability[off_grid]
    answers = upright.argmax(-1)
    changed = turned.argmax(-1) != answers
    second, first = np.sort(upright, axis=-1)[:, -2:].T
    lead = first - second
    # By rank, not by value: many networks are so sure that leads are equal.
    unsure = np.argsort(np.argsort(lead, kind="stable")) < UNSURE * len(lead)
    total = int(changed.sum())
    return {
        "changed": float(changed.mean()),
        "of_unsure": float(changed[:, unsure].sum() / total) if total else None,
        "stays_if_sure": float(1 - changed[:, ~unsure].mean()),
        "moved": float(np.abs(turned - upright).sum(-1).mean() / 2),
        "lead": float(np.median(lead)),
        "wrong": float(changed[:, answers != labels].sum() / total) if total else None,
    }


if __name__ == "__main__":
    try:
        sys.exit(main())
    except SREError as error:
        sys.exit(f"error: {error}")
