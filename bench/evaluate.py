"""How long an evaluation takes, and where the time goes: python -m bench.evaluate.

A whole test set, the three networks that are shipped for it, 36 angles, and the bootstrap. The
parts are timed on one chunk of images in a single thread and told per image; "one of four" is what
asking an exactly invariant network at one of four quarter turns saves. With --device cuda the whole
is timed on a GPU, twice: the first time includes what starts there and is built for it once.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from bench.harness import ROOT, circumstances, interleave, spread, write_results
from sre.checkpoints import list_checkpoints
from sre.commands.common import add_data_dir, add_device, check_device
from sre.data.store import load_split
from sre.data.table import find_dataset
from sre.evaluation import ANGLES_DEG
from sre.home import DATA
from sre.poses import Pose, present_pose
from sre.protocols import find_protocol, prepare
from sre.statistics import areas_under_curve, bootstrap_weights
from sre.studies.answering import CHUNK_IMAGES, Measured
from sre.studies.contenders import load_contenders
from sre.studies.evaluate_run import EvaluationView, run_evaluation
from sre.studies.naming import SIZE_PX


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write bench/results/evaluate.json."""
    parser = argparse.ArgumentParser(prog="python -m bench.evaluate", description=__doc__)
    add_data_dir(parser, os.environ.get("SRE_DATA_DIR") or DATA)
    parser.add_argument("--dataset", default="bloodmnist")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds of each part")
    parser.add_argument("--most-images", type=int, help="of the test set, for a shorter run")
    add_device(parser)
    args = parser.parse_args(arguments)
    check_device(args.device)
    torch.set_num_threads(args.threads)
    is_gpu = args.device.startswith("cuda")
    results = {
        "made_by": "python -m bench.evaluate" + (" --device cuda" if is_gpu else ""),
        **circumstances(),
        "dataset": args.dataset,
        "whole": measure_whole(args.dataset, args.data_dir, args.most_images, args.device),
    }
    print(json.dumps(results["whole"]))
    if is_gpu:  # which the parts' clock would not wait for
        results["device"] = torch.cuda.get_device_name(args.device)
        results["first"] = results["whole"]
        results["whole"] = measure_whole(args.dataset, args.data_dir, args.most_images, args.device)
        print(json.dumps(results["whole"]))
        print(f"wrote {write_results('evaluate-gpu', results)}")
        return 0
    torch.set_num_threads(1)
    results["parts_ms_an_image"] = measure_parts(args.dataset, args.data_dir, args.rounds)
    print(json.dumps(results["parts_ms_an_image"]))
    print(f"wrote {write_results('evaluate', results)}")
    return 0


def find_networks(dataset: str) -> list[Path]:
    """Give the networks that are shipped for a data set, for images as they are."""
    cards = list_checkpoints(ROOT / "checkpoints")
    ours = (dataset, SIZE_PX)
    return [path for path, card in cards.items() if (card.dataset, card.side_px) == ours]


def measure_whole(
    dataset: str, data_dir: Path, most_images: int | None, device: str = "cpu"
) -> dict[str, object]:
    """Time an evaluation from its start to its figures, nothing kept from another."""
    paths, start = find_networks(dataset), time.perf_counter()
    answered_s, view = 0.0, None
    for event in run_evaluation(
        dataset, paths, data_dir=data_dir, most_images=most_images, device=device
    ):
        if isinstance(event, Measured):
            answered_s = time.perf_counter() - start
        else:
            view = event
    assert isinstance(view, EvaluationView)
    took_s = time.perf_counter() - start
    return {
        "images": view.images,
        "networks": len(view.models),
        "angles": len(view.models[0].angles),
        "resamples": view.resamples,
        "took_s": round(took_s, 1),
        "answers_s": round(answered_s, 1),
        "statistics_s": round(took_s - answered_s, 1),
        "asked_at_one_of_four": [model.name for model in view.models if model.is_exact],
    }


def measure_parts(dataset: str, data_dir: Path, rounds: int) -> dict[str, object]:
    """Time preparing, turning, each network and the areas under the curve."""
    protocol, entry = find_protocol("disc"), find_dataset(dataset)
    data = load_split(dataset, "test", data_dir=data_dir)
    images = data.images[:CHUNK_IMAGES]
    pixels = prepare(images, protocol, side_px=28)
    turned = present_pose(pixels, protocol, Pose(30.0))
    weights = np.asfortranarray(bootstrap_weights(len(data), resamples=200))
    score = np.random.default_rng(0).random(len(data))
    truth = (data.labels if data.labels.ndim == 1 else data.labels[:, 0]) == 1

    with torch.inference_mode():
        timed = interleave(
            {
                "prepare": lambda i: prepare(images, protocol, side_px=28),
                "turn": lambda i: present_pose(pixels, protocol, Pose(30.0)),
                **{
                    who.name: lambda i, model=who.model: model(turned)
                    for who in load_contenders(find_networks(dataset), entry, protocol)
                },
                "area_of_one_class_and_angle": lambda i: areas_under_curve(weights, truth, score),
            },
            rounds=rounds,
        )
    sizes = {name: len(images) for name in timed} | {"area_of_one_class_and_angle": len(data)}
    return {
        name: spread([1000 * s / sizes[name] for s in seconds]) for name, seconds in timed.items()
    } | {"angles_by_default": len(ANGLES_DEG)}


if __name__ == "__main__":
    sys.exit(main())
