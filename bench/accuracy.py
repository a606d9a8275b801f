"""Accuracy of a sweep's networks, upright and turned, over data sets, arms and seeds.

Every figure is the mean over the seeds that are there, with a 95 % bootstrap interval for which
test images and seeds are drawn with replacement, independently of each other (Owen, The Pigeonhole
Bootstrap, Annals of Applied Statistics 1, 2007): all networks answer the same images, and networks
of one seed saw the same training images in the same order, so that a sample gives all arms the same
images and seeds, and a difference of two arms has its interval from the differences. Of three seeds
the part of the spread that is theirs comes out a fifth too small, of one seed it is missing. The
p-value of a difference is that of a paired permutation test over the images, of the mean over the
seeds (Good, Permutation Tests, 2000): it is about these trained networks.

Averages over rotations are no training of their own: they ask another arm's networks. The recipe's
networks (bench/recipe.toml) answer the same images: it was chosen by validation images.

What a network said is kept in bench/results/runs, so that its checkpoint is needed once.
"""

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from bench.harness import RESULTS_DIR, circumstances, interleave, spread, write_results
from bench.runs import RUNS_DIR, Said, file_of, find_said, write_said
from sre.averaging import RotationAverage
from sre.checkpoints import CheckpointCard, build_untrained, load_card
from sre.commands.common import add_data_dir, add_device, check_device
from sre.data.split import Split
from sre.data.store import file_md5, load_split
from sre.data.table import find_dataset
from sre.errors import SettingError, SREError
from sre.evaluation import ANGLES_DEG, classify, decide
from sre.home import ANSWERS, DATA, SWEEP
from sre.models import find_model
from sre.protocols import find_protocol
from sre.statistics import (
    areas_by_class,
    bootstrap_weights,
    interval,
    over_seeds,
    paired_p_value,
)
from sre.studies.answering import answers_over
from sre.studies.contenders import Contender, load_contenders
from sre.studies.evaluate_figures import AREA_RESAMPLES
from sre.studies.evaluate_run import RESAMPLES
from sre.studies.sweep import Arm, Sweep
from sre.studies.sweep_file import read_sweep
from sre.studies.sweep_run import state_of

FILES = [Path(__file__).with_name(f"{name}.toml") for name in ("accuracy", "recipe")]
PROTOCOL = "disc"
TIMED_IMAGES = 64


@dataclass(frozen=True, eq=False)
class Answers:
    """What one arm's networks said to the test images, and under the bootstrap's weights."""

    arm: Arm
    sweep: str  # the name of its file
    seeds: tuple[int, ...]
    cards: tuple[CheckpointCard, ...]  # one a seed
    right: np.ndarray  # (seeds, angles, images), of multi-label sets the mean over labels
    same: np.ndarray  # likewise: the same answer as upright
    areas: np.ndarray  # (seeds, samples): area under the curve, upright


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.accuracy", description=__doc__)
    parser.add_argument(
        "--files", type=Path, nargs="+", default=FILES,
        help="of the sweeps; the README tells of accuracy.toml and recipe.toml",
    )  # fmt: skip
    parser.add_argument(
        "--width", type=int, help="of the networks, in place of the files'; with results of its own"
    )
    parser.add_argument("--folder", type=Path, default=SWEEP, help="of its checkpoints")
    parser.add_argument(
        "--runs", type=Path, default=RUNS_DIR, help="of what earlier networks said, and these say"
    )
    parser.add_argument("--keep-dir", type=Path, default=ANSWERS, help="of answers")
    data_dir = os.environ.get("SRE_DATA_DIR") or DATA
    add_data_dir(parser, data_dir)
    add_device(parser)
    parser.add_argument(
        "--time", action="store_true",
        help="also time an image, on a machine that does nothing else; else earlier times stay",
    )  # fmt: skip
    args = parser.parse_args(arguments)
    try:
        return measure(args)
    except SREError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def measure(args: argparse.Namespace) -> int:
    """Ask all networks that are done, and write down what they say."""
    check_device(args.device)
    sweeps = {file.stem: read_sweep(file, width=args.width) for file in args.files}
    names = [arm.name for sweep in sweeps.values() for arm in sweep.arms]
    if len(sweeps) < len(args.files) or len(set(names)) < len(names):
        raise SettingError("sweeps that are compared must have files and arms of different names")
    began, found, timed = circumstances(), {}, {}
    for dataset in dict.fromkeys(name for sweep in sweeps.values() for name in sweep.configs):
        there = [
            (name, sweep, arm)
            for name, sweep in sweeps.items()
            for arm in sweep.arms
            if dataset in sweep.configs and is_there(sweep, dataset, arm, args)
        ]
        if not there:
            continue
        data = load_split(dataset, "test", data_dir=args.data_dir)
        asked = (answers_of(dataset, data, *one, args) for one in there)
        if answers := [one for one in asked if one]:
            found[dataset] = dataset_figures(dataset, data, answers)
            if args.time:
                timed[dataset] = time_of_an_image(answers, data, args.device)
    if not found:
        files = " or ".join(map(str, args.files))
        print(
            f"no run of {files} is done in {args.folder} or known in {args.runs}; python -m sre "
            "sweep makes them"
        )
        return 1
    name, command = named(args.files, args.width)
    times = {**circumstances(), "images": TIMED_IMAGES, "seconds": timed}
    results = {
        **began,
        "command": command,
        "protocol": PROTOCOL,
        "angles_deg": ANGLES_DEG,
        "resamples": RESAMPLES,
        "arms": {
            arm.name: arm_facts(sweep, arm) | {"sweep": name}
            for name, sweep in sweeps.items()
            for arm in sweep.arms
        },
        "datasets": found,
        "time": times if args.time else earlier_times(found, _earlier(name)),
    }
    print(f"written: {write_results(name, results)}")
    return 0


def named(files: Sequence[Path], width: int | None) -> tuple[str, str]:
    """Name the results of some sweeps, and the command that makes them."""
    name, command = "accuracy", "python -m bench.accuracy"
    if list(files) != FILES:
        name = "-".join([name, *(file.stem for file in files)])
        command = " ".join([command, "--files", *(f"bench/{file.name}" for file in files)])
    if width is not None:
        name, command = f"{name}-w{width}", f"{command} --width {width}"
    return name, command


def is_there(sweep: Sweep, dataset: str, arm: Arm, args: argparse.Namespace) -> bool:
    """Tell whether any run of an arm is done or known."""
    runs = [sweep.run_of(dataset, arm, seed) for seed in sweep.seeds]
    return any(
        file_of(run, arm, args.runs).is_file()
        or state_of(run, data_dir=args.data_dir, output=args.folder) == "done"
        for run in runs
    )


def answers_of(
    dataset: str, data: Split, name: str, sweep: Sweep, arm: Arm, args: argparse.Namespace
) -> Answers | None:
    """Gather what an arm's networks say, one a seed, about all images at all angles."""
    known: dict[int, Said] = {}
    for seed in tqdm(sweep.seeds, desc=f"{dataset} {arm.name}"):
        run = sweep.run_of(dataset, arm, seed)
        said = find_said(run, arm, args.runs)
        if said is not None and not fits(said, data, dataset, args.data_dir):
            said = None
        if state_of(run, data_dir=args.data_dir, output=args.folder) == "done":
            checkpoint = args.folder / run.file_name
            if said is None or said.card != load_card(checkpoint):
                said = ask(contender(checkpoint, arm, dataset, args.device), data, args.keep_dir)
                write_said(said, file_of(run, arm, args.runs))
        if said is not None:
            known[seed] = said
    return answers_from(arm, name, known, data.labels) if known else None


def answers_from(arm: Arm, sweep: str, known: Mapping[int, Said], labels: np.ndarray) -> Answers:
    """Hold what networks decided against the labels."""
    decided = np.stack([said.decided for said in known.values()])  # (seeds, angles, images, ...)
    right, same = decided == labels, decided == decided[:, :1]
    if labels.ndim == 2:
        right, same = right.mean(-1), same.mean(-1)
    return Answers(
        arm,
        sweep,
        tuple(known),
        tuple(said.card for said in known.values()),
        right.astype(float),
        same.astype(float),
        np.stack([said.areas for said in known.values()]),
    )


def fits(said: Said, data: Split, dataset: str, data_dir: Path) -> bool:
    """Tell whether answers are of these images and angles, and of as many bootstrap samples."""
    return (
        said.decided.shape[:2] == (len(ANGLES_DEG), len(data))
        and said.areas.shape == (1 + AREA_RESAMPLES,)
        and said.card.dataset_md5 == (file_md5(find_dataset(dataset), data_dir=data_dir) or "")
    )


def contender(checkpoint: Path, arm: Arm, dataset: str, device: str) -> Contender:
    """Load an arm's network, or its average over turns."""
    return load_contenders(
        [checkpoint],
        find_dataset(dataset),
        find_protocol(PROTOCOL),
        average_rotations=arm.turns,
        device=device,
    )[-1]


def ask(who: Contender, data: Split, keep_dir: Path) -> Said:
    """Ask a network about all images at all angles."""
    answers = answers_over(who, data, PROTOCOL, ANGLES_DEG, keep_dir=keep_dir)
    decided = decide(answers, is_multi_label=who.card.is_multi_label)
    return Said(who.card, decided, areas_of(answers[0], data.labels))


def areas_of(upright: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Area under the curve of probabilities (N, K), mean over the classes, for every sample."""
    few = bootstrap_weights(len(labels), resamples=RESAMPLES)[: 1 + AREA_RESAMPLES]
    return np.nanmean(areas_by_class(few, upright, labels), axis=-1)


def dataset_figures(dataset: str, data: Split, answers: list[Answers]) -> dict[str, object]:
    """Sum up one data set: each arm, and each two arms of which one is SRE's or the CNN."""
    weights, entry = bootstrap_weights(len(data), resamples=RESAMPLES), find_dataset(dataset)
    plain = next((a for a in answers if _family(a.arm) == "plain" and not a.arm.rotate), answers[0])
    others = [a for a in answers if a.sweep == "recipe" and _family(a.arm) == "sre"]
    leads = list(dict.fromkeys([answers[0], plain, *others]))
    pairs = [
        compare(first, second, weights)
        for number, first in enumerate(leads)
        for second in answers
        if second not in leads[: number + 1]
    ]
    return {
        "title": entry.title,
        "images": len(data),
        "classes": len(entry.classes),
        "arms": {a.arm.name: figures_of(a, weights) for a in answers},
        "pairs": [pair for pair in pairs if pair],
    }


def figures_of(found: Answers, weights: np.ndarray) -> dict[str, object]:
    """Sum up one arm: the figures with their intervals, what it costs, and what made it."""
    accuracy = np.einsum("rn,san->rsa", weights, found.right)
    samples = {
        "accuracy_at_0": accuracy[:, :, 0],
        "accuracy_mean": accuracy.mean(2),
        "accuracy_worst": accuracy.min(2),  # of each network's worst angle
        "consistency": np.einsum("rn,san->rsa", weights, found.same).mean(2),
        "auc_at_0": found.areas.T,
    }
    card = found.cards[0]
    return {
        "seeds": found.seeds,
        "parameters": card.parameters,
        "multiply_adds": card.multiply_adds * found.arm.turns,
        "width": card.width,
        **{name: asdict(interval(over_seeds(s))) for name, s in samples.items()},
        "accuracy_by_angle": [round(float(x), 6) for x in accuracy[0].mean(0)],
        "training_s": [card.seconds for card in found.cards],
        "runs": [run_facts(card) for card in found.cards],
    }


def compare(first: Answers, second: Answers, weights: np.ndarray) -> dict[str, object] | None:
    """Compare two arms on the seeds that both have, image by image; None if they share none."""
    shared = [seed for seed in first.seeds if seed in second.seeds]
    if not shared:
        return None
    one, other = (a.right[[a.seeds.index(seed) for seed in shared]] for a in (first, second))
    found: dict[str, object] = {
        "first": first.arm.name, "second": second.arm.name, "seeds": shared
    }  # fmt: skip
    for name, difference in (("upright", (one - other)[:, 0]), ("mean", (one - other).mean(1))):
        found[name] = asdict(interval(over_seeds(weights @ difference.T)))
        found[f"{name}_p"] = paired_p_value(difference.mean(0))
    return found


def run_facts(card: CheckpointCard) -> dict[str, object]:
    """Keep what tells how a network was made."""
    names = ("seed", "best_epoch", "epochs", "device", "created", "command", "dataset_md5")
    facts = {name: getattr(card, name) for name in names}
    return facts | {
        "fingerprint": card.fingerprint,
        "versions": dict(card.versions),
        "config": dict(card.config),
    }


def arm_facts(sweep: Sweep, arm: Arm) -> dict[str, object]:
    trained = sweep.arm(arm.averages) if arm.averages else arm
    return {
        "title": arm.title,
        "family": find_model(trained.model).family,
        "model": trained.model,
        "rotate": trained.rotate,
        "side_px": trained.side_px,  # None: as the sweep has it
        "blur_pools": trained.blur_pools,
        "averages": arm.averages,
        "turns": arm.turns,
    }


def time_of_an_image(
    answers: list[Answers], data: Split, device: str
) -> dict[str, dict[str, float]]:
    """Time a network like each arm's, in turn, on the same images; seconds an image.

    Untrained ones, as the time does not depend on what was learned: checkpoints need not be there.
    """
    images, protocol = data.images[:TIMED_IMAGES], find_protocol(PROTOCOL)

    def answer(model: nn.Module, card: CheckpointCard) -> None:
        classify(
            model, images, protocol, side_px=card.side_px, angle_deg=0.0,
            is_multi_label=card.is_multi_label,
        )  # fmt: skip
        if next(model.parameters()).is_cuda:
            torch.cuda.synchronize()

    like = {a.arm.name: (untrained(a.arm, a.cards[0], device), a.cards[0]) for a in answers}
    taken = interleave({n: (lambda _, one=one: answer(*one)) for n, one in like.items()}, rounds=9)
    return {name: spread([s / len(images) for s in times]) for name, times in taken.items()}


def untrained(arm: Arm, card: CheckpointCard, device: str) -> nn.Module:
    """Build a network like that of a card, as it is asked, or its average over turns."""
    model = build_untrained(card).to(device).eval().requires_grad_(False).fused()
    if arm.turns == 1:
        return model
    return RotationAverage(
        model, arm.turns, is_multi_label=card.is_multi_label,
        interpolation=find_protocol(PROTOCOL).interpolation,
    )  # fmt: skip


def _family(arm: Arm) -> str:
    return "" if arm.averages else find_model(arm.model).family


def earlier_times(found: dict[str, Any], earlier: dict[str, Any] | None) -> dict[str, Any] | None:
    """Keep times of an earlier file, of networks that cost as much as today's."""
    if earlier is None or earlier["time"] is None:
        return None

    def cost(results: dict[str, Any], dataset: str, arm: str) -> int | None:
        return results.get(dataset, {}).get("arms", {}).get(arm, {}).get("multiply_adds")

    seconds = {
        dataset: {
            arm: taken
            for arm, taken in arms.items()
            if cost(found, dataset, arm) == cost(earlier["datasets"], dataset, arm) is not None
        }
        for dataset, arms in earlier["time"]["seconds"].items()
    }
    return earlier["time"] | {"seconds": {name: arms for name, arms in seconds.items() if arms}}


def _earlier(name: str) -> dict[str, Any] | None:
    path = RESULTS_DIR / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


if __name__ == "__main__":
    raise SystemExit(main())
