"""What the Train page's two-minute preset reaches on cells: python -m bench.training.

Each kind of network is trained as a visitor would who presses Start, up to the end of training: the
plan of the epochs comes from a few measured steps, as there. Beside it, what share of a step the
augmentation of its images takes.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from bench.harness import circumstances, interleave, spread, write_results
from sre.augmentation import augment
from sre.data.store import load_split
from sre.home import DATA
from sre.protocols import find_protocol, prepare
from sre.studies.job_settings import JobSettings
from sre.studies.plan import build_network
from sre.studies.train_run import Evaluating, Planned, run_training
from sre.studies.trainer import PRESETS
from sre.training import EpochDone

MODELS = ("sre_resnet18", "gmr_resnet18", "resnet18")
PRESET, DATASET, ASKED = "minutes", "cells", 0.95


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write bench/results/training.json."""
    parser = argparse.ArgumentParser(prog="python -m bench.training", description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=20, help="timed steps")
    parser.add_argument("--minutes", type=float, help="budget of a run, by default the preset's")
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    runs = {}
    for model in MODELS:
        settings = preset_of(PRESET, model, DATASET)
        if args.minutes is not None:
            settings = replace(settings, minutes=args.minutes)
        runs[model] = measure_run(settings)
        print(f"{model}: {json.dumps(runs[model])}")
    results = {
        "made_by": "python -m bench.training",
        **circumstances(),
        "dataset": DATASET,
        "preset": find_preset(PRESET)["title"],
        "asked_accuracy": ASKED,
        "runs": runs,
        "step": measure_step(settings, args.rounds),
    }
    print(json.dumps(results["step"]))
    print(f"wrote {write_results('training', results)}")
    return 0


def find_preset(name: str) -> Mapping[str, Any]:
    """Look up one of the Train page's presets."""
    return next(preset for preset in PRESETS if preset["name"] == name)


def preset_of(name: str, model: str, dataset: str) -> JobSettings:
    """Give a preset's settings for a kind of network and a data set."""
    asked = dict(find_preset(name)["settings"], dataset=dataset, model=model)
    return JobSettings.from_request(asked)


def train_only(
    settings: JobSettings, *, data_dir: Path = DATA, device: str = "cpu"
) -> tuple[Planned, list[EpochDone]]:
    """Train as a visitor would who presses Start; the test images are not looked at."""
    epochs = []
    with tempfile.TemporaryDirectory() as folder:
        for event in run_training(
            **settings.training(), data_dir=data_dir, output=Path(folder), device=device
        ):
            match event:
                case Planned():
                    planned = event
                case EpochDone():
                    epochs.append(event)
                case Evaluating():
                    break
    return planned, epochs


def best_of(epochs: Sequence[EpochDone]) -> EpochDone:
    """Give the epoch whose weights are kept."""
    return next(epoch for epoch in reversed(epochs) if epoch.is_best)


def measure_run(settings: JobSettings) -> dict[str, object]:
    """Train until the budget is used up, and tell how each epoch's validation images fared."""
    planned, epochs = train_only(settings)
    best = best_of(epochs)
    return {
        "command": settings.command(),
        "parameters": planned.parameters,
        "epochs_planned": planned.epochs,
        "took_s": round(epochs[-1].seconds, 1),
        "val_accuracy": best.val_accuracy,
        "val_turned_accuracy": best.val_turned_accuracy,
        "asked_reached_s": seconds_until(ASKED, epochs),
        "epochs": [asdict(epoch) for epoch in epochs],
    }


def seconds_until(accuracy: float, epochs: Sequence[EpochDone]) -> float | None:
    """Training time after which validation images first fared so well; None: never."""
    return next((round(e.seconds, 1) for e in epochs if e.val_accuracy >= accuracy), None)


def measure_step(settings: JobSettings, rounds: int) -> dict[str, object]:
    """Time the parts of one training step, images turned and all; milliseconds."""
    config, split = settings.config, load_split(settings.dataset, "train", data_dir=DATA)
    batch, labels = (part[: config.batch_size] for part in (split.images, split.labels))
    protocol, generator = find_protocol(config.protocol), torch.Generator().manual_seed(1)
    target = torch.tensor(labels)
    network = build_network(settings).train()
    optimizer = torch.optim.AdamW(network.parameters(), fused=True)

    def augmented() -> torch.Tensor:
        pixels = prepare(batch, protocol, side_px=config.side_px)
        return augment(pixels, config, generator)

    ready = augmented()

    def learn() -> None:
        optimizer.zero_grad()
        F.cross_entropy(network(ready), target).backward()
        optimizer.step()

    timed = interleave(
        {"augmentation": lambda _: augmented(), "network": lambda _: learn()}, rounds=rounds
    )
    pairs = zip(timed["augmentation"], timed["network"], strict=True)
    return {
        "model": settings.model,
        "batch": len(batch),
        "augmentation_ms": spread([1000 * s for s in timed["augmentation"]]),
        "network_ms": spread([1000 * s for s in timed["network"]]),
        "augmentation_share": spread([ours / (ours + rest) for ours, rest in pairs]),
    }


if __name__ == "__main__":
    sys.exit(main())
