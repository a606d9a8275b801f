"""How long a visitor waits for an orbit, and how smoothly it turns: python -m bench.orbit.

Three networks, 72 angles, every stage, on test images of the built-in cells. Width 16 is that of
the networks in checkpoints/; of width 64 there are none, so that these are untrained. Uncached:
from the image to the bundle that goes to the browser; against it, the same as 72 calls of one angle
each. Cached, and the positions painted while dragging, are measured in Chromium.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from bench.harness import ROOT, circumstances, interleave, memory_mb, spread, write_results
from sre.checkpoints import CheckpointCard, list_checkpoints, save_checkpoint
from sre.data.store import load_split
from sre.data.table import find_dataset
from sre.evaluation import probabilities
from sre.explanation import compute_cams, trace
from sre.layers import SREConv2d
from sre.models import build_model, count_multiply_adds, count_parameters
from sre.protocols import find_protocol, prepare, present
from sre.studies.bundle import pack_orbit
from sre.studies.orbit import ANGLES_DEG, load_fresh, study_orbit

ARMS = (("sre_resnet18", False), ("resnet18", False), ("resnet18", True))
WIDTHS = (16, 64)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write bench/results/orbit.json."""
    parser = argparse.ArgumentParser(prog="python -m bench.orbit", description=__doc__)
    parser.add_argument("--rounds", type=int, default=9, help="timed rounds of each contender")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--memory-of", type=int, metavar="WIDTH", help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    if args.memory_of:
        print(peak_memory_mb(args.memory_of))
        return 0
    results = {"made_by": "python -m bench.orbit", **circumstances(), "rows": []}
    for width in WIDTHS:
        row = measure(width, args.rounds)
        print(json.dumps(row))
        results["rows"].append(row)
    results["browser"] = measure_browser()
    print(json.dumps(results["browser"]))
    print(f"wrote {write_results('orbit', results)}")
    return 0


def find_networks(width: int, folder: Path) -> list[Path]:
    """Give the three networks of the cells that are shipped, or else untrained ones."""
    cards = list_checkpoints(ROOT / "checkpoints")
    shipped = [p for p, card in cards.items() if (card.dataset, card.width) == ("cells", width)]
    return shipped or make_networks(width, folder)


def make_networks(width: int, folder: Path) -> list[Path]:
    """Write three untrained networks."""
    torch.manual_seed(0)
    entry, paths = find_dataset("cells"), []
    for name, rotates in ARMS:
        model = build_model(
            name, in_channels=entry.channels, num_classes=len(entry.classes), width=width
        )
        card = CheckpointCard(
            dataset=entry.name,
            classes=entry.classes,
            is_multi_label=False,
            in_channels=entry.channels,
            side_px=28,
            model=name,
            width=width,
            kernel_sizes=(9, 9, 5, 5),
            rotates_in_training=rotates,
            protocol="disc",
            parameters=count_parameters(model),
            multiply_adds=count_multiply_adds(model, in_channels=entry.channels, side=28),
            config={},
            command="untrained",
        )
        paths.append(folder / card.file_name)
        save_checkpoint(model, card, paths[-1])
    return paths


def measure(width: int, rounds: int) -> dict[str, object]:
    """Time whole orbits against 72 calls of one angle, each with another image every round."""
    images = load_split("cells", "test", data_dir=Path()).images
    with tempfile.TemporaryDirectory() as folder:
        paths = find_networks(width, Path(folder))
        bundle_bytes = []

        def whole(i: int) -> None:
            view = study_orbit(images[i], checkpoints=paths)
            bundle_bytes.append(len(pack_orbit(view, key="0", dataset={}, sample={}).encode()))

        timed = interleave(
            {
                "orbit": whole,
                "networks": lambda i: study_orbit(images[i], checkpoints=paths),
                "single": lambda i: single_angles(images[i], paths),
                "dense": lambda i: dense_networks(images[i], paths),
            },
            rounds=rounds,
        )
    ratio = [s / o for s, o in zip(timed["single"], timed["networks"], strict=True)]
    memory = subprocess.run(
        [sys.executable, "-m", "bench.orbit", "--memory-of", str(width)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return {
        "width": width,
        "uncached_s": spread(timed["orbit"]),
        "networks_s": spread(timed["networks"]),
        "single_calls_s": spread(timed["single"]),
        "dense_networks_s": spread(timed["dense"]),
        "single_over_batched": spread(ratio),
        "bundle_bytes_max": max(bundle_bytes),
        "peak_memory_mb": int(memory.stdout.split()[-1]),
    }


def single_angles(image: np.ndarray, paths: list[Path]) -> None:
    """What a page would do that asks for one angle at a time: predictions, maps and CAMs."""
    protocol = find_protocol("disc")
    for model, _ in (load_fresh(path) for path in paths):
        pixels = prepare(image[None], protocol, side_px=28)
        for angle in ANGLES_DEG:
            traced = trace(model, present(pixels, protocol, angle_deg=angle))
            probabilities(traced.logits.detach(), is_multi_label=False).numpy()
            compute_cams(traced)


def dense_networks(image: np.ndarray, paths: list[Path]) -> None:
    """The same orbit with dense kernels, as it was computed before there were band sums."""
    models = [load_fresh(path)[0] for path in paths]
    layers = [m for model in models for m in model.modules() if isinstance(m, SREConv2d)]
    for layer in layers:
        layer.dense = True
    study_orbit(image, checkpoints=paths)
    for layer in layers:
        layer.dense = False


def peak_memory_mb(width: int) -> int:
    """Resident memory of a process that computes orbits, at its peak, everything included."""
    image = load_split("cells", "test", data_dir=Path()).images[0]
    with tempfile.TemporaryDirectory() as folder:
        paths = find_networks(width, Path(folder))
        for _ in range(2):
            view = study_orbit(image, checkpoints=paths)
            pack_orbit(view, key="0", dataset={}, sample={})
    return round(memory_mb("VmHWM"))


def measure_browser() -> dict[str, object]:
    """Time the page itself: click to paint of an orbit that the server has, and dragging."""
    from bench.browser import measure_page  # noqa: PLC0415 - only here is Playwright needed

    start = time.perf_counter()
    return measure_page() | {"took_s": round(time.perf_counter() - start, 1)}


if __name__ == "__main__":
    sys.exit(main())
