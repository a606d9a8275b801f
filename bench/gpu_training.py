"""Training on a GPU, as `sre.training` does it there: python -m bench.gpu_training.

A training step of the preset "paper", turned images and all, in single precision, in TF32, in
bfloat16 and in bfloat16 with channels last, which is how training goes; and the same with images
that are kept and augmented beside the GPU. Then runs of that preset, as many epochs as are asked
for: the median epoch after the first says how long all of them take.
"""

import argparse
import itertools
import json
import os
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from bench.gpu import peak_memory_mb, synchronize, using
from bench.harness import circumstances, interleave, spread, write_results
from bench.training import MODELS, best_of, preset_of, train_only
from sre.augmentation import augment
from sre.commands.common import add_data_dir, add_device, check_device
from sre.data.store import load_split
from sre.data.table import find_dataset
from sre.home import DATA
from sre.protocols import find_protocol, prepare
from sre.studies.job_settings import JobSettings
from sre.studies.plan import build_network
from sre.training import hold, loss_of, select


@dataclass(frozen=True, slots=True)
class Way:
    """One way of doing a training step."""

    precision: str  # as bench.gpu has them
    layout: torch.memory_format
    is_held: bool  # whether the images are kept, and augmented, on the GPU


WAYS = {
    "float32": Way("float32", torch.contiguous_format, is_held=True),
    "tf32": Way("tf32", torch.contiguous_format, is_held=True),
    "bfloat16": Way("bfloat16", torch.contiguous_format, is_held=True),
    "bfloat16, channels last": Way("bfloat16", torch.channels_last, is_held=True),
    "the same, images from the host": Way("bfloat16", torch.channels_last, is_held=False),
}
USUAL = "bfloat16, channels last"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write bench/results/gpu_training.json."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu_training", description=__doc__)
    add_data_dir(parser, os.environ.get("SRE_DATA_DIR") or DATA)
    add_device(parser)
    parser.set_defaults(device="cuda")
    parser.add_argument("--dataset", default="bloodmnist")
    parser.add_argument("--rounds", type=int, default=20, help="timed steps of each way")
    parser.add_argument("--epochs", type=int, help="of each run, by default the preset's")
    args = parser.parse_args(arguments)
    check_device(args.device)
    device = torch.device(args.device)
    asked = {model: preset_of("paper", model, args.dataset) for model in MODELS}
    results = {
        "made_by": "python -m bench.gpu_training",
        **circumstances(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU",
        "dataset": args.dataset,
        "steps": {},
        "runs": {},
    }
    for model, settings in asked.items():
        results["steps"][model] = measure_steps(settings, args.data_dir, device, args.rounds)
        print(f"{model}: {json.dumps(results['steps'][model])}", flush=True)
    for model, settings in asked.items():
        results["runs"][model] = measure_run(settings, args.data_dir, args.device, args.epochs)
        print(f"{model}: {json.dumps(results['runs'][model])}", flush=True)
    print(f"wrote {write_results('gpu_training', results)}")
    return 0


def measure_steps(
    settings: JobSettings, data_dir: Path, device: torch.device, rounds: int
) -> dict[str, object]:
    """Time a step by every way, in turn, and its memory; and the augmentation alone. Milliseconds.

    Each way has a network of its own, the same at first, and the same images in the same order.
    """
    config, split = settings.config, load_split(settings.dataset, "train", data_dir=data_dir)
    protocol, labels = find_protocol(config.protocol), torch.tensor(split.labels).to(device)
    held, host = hold(split.images, device), split.images
    is_multi_label = find_dataset(settings.dataset).is_multi_label

    def images_of(way: Way, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        batch = torch.randint(len(labels), (config.batch_size,), generator=generator)
        pixels = prepare(
            select(held if way.is_held else host, batch), protocol, side_px=config.side_px
        )
        return augment(pixels, config, generator).to(device), labels[batch.to(device)]

    calls, memory = {}, {}
    for name, way in WAYS.items():
        torch.manual_seed(config.seed)
        network = build_network(settings).to(device).train()
        optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=True)
        generator = torch.Generator().manual_seed(config.seed)

        def step(_: int, way=way, network=network, optimizer=optimizer, generator=generator):
            is_half = way.precision == "bfloat16"
            with using(way.precision):
                x, target = images_of(way, generator)
                with torch.autocast(device.type, torch.bfloat16, enabled=is_half):
                    logits = network(x.to(memory_format=way.layout))
                loss = loss_of(logits.float(), target, is_multi_label=is_multi_label)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                loss.item()
            synchronize(device)

        calls[name] = step
        for i in range(3):
            step(i)
        memory[name] = peak_memory_mb(lambda step=step: step(0), device)
    generator = torch.Generator().manual_seed(config.seed)
    calls["augmentation"] = lambda _: (images_of(WAYS[USUAL], generator), synchronize(device))
    timed = interleave(calls, rounds=rounds)
    return {
        "batch": config.batch_size,
        "ms": {name: spread([1000 * s for s in times]) for name, times in timed.items()},
        "over_usual": {
            name: spread([a / b for a, b in zip(times, timed[USUAL], strict=True)])
            for name, times in timed.items()
        },
        "peak_memory_mb": memory,
    }


def measure_run(
    settings: JobSettings, data_dir: Path, device: str, most_epochs: int | None
) -> dict[str, object]:
    """Train for some of the preset's epochs, or all, and tell how long each took."""
    asked = settings.config.epochs
    if most_epochs is not None:
        settings = replace(settings, config=replace(settings.config, epochs=most_epochs))
    _, epochs = train_only(settings, data_dir=data_dir, device=device)
    ends = [epoch.seconds for epoch in epochs]
    each = [after - before for before, after in itertools.pairwise(ends)] or ends
    best = best_of(epochs)
    return {
        "epochs": len(epochs),
        "took_s": ends[-1],
        "first_epoch_s": ends[0],
        "epoch_s": spread(each) if len(each) > 1 else {"median": each[0], "n": 1},
        "asked_epochs": asked,
        # What is left at the pace of the median epoch; nothing is left of a whole run.
        "asked_s": ends[-1] + (asked - len(epochs)) * statistics.median(each),
        "best_epoch": best.epoch,
        "val_accuracy": best.val_accuracy,
        "val_turned_accuracy": best.val_turned_accuracy,
        "told": [asdict(epoch) for epoch in epochs],
    }


if __name__ == "__main__":
    sys.exit(main())
