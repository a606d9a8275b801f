"""How the cost of one layer grows: python -m bench.scaling.

A radial convolution by band sums against the same with its dense kernel, forward, as the kernel,
the image, the width and the batch grow; each pair in turn. An exponent p says that time grows as
the p-th power, fitted to the medians by least squares on logarithms.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
import torch

from bench.harness import circumstances, interleave, spread, write_results
from sre.layers import SREConv2d

MIDDLE: Mapping[str, int] = MappingProxyType({"kernel": 9, "side": 32, "width": 64, "batch": 8})
SWEEPS: Mapping[str, tuple[int, ...]] = MappingProxyType(
    {
        "kernel": (3, 5, 7, 9, 11, 13, 15),
        "side": (28, 56, 112, 224),
        "width": (16, 32, 64, 128, 256),
        "batch": (1, 4, 16, 64, 256),
    }
)
WAYS = ("bands", "dense")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write bench/results/scaling.json."""
    parser = argparse.ArgumentParser(prog="python -m bench.scaling", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="timed rounds of each pair")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    results = {
        "made_by": "python -m bench.scaling",
        **circumstances(),
        "middle": dict(MIDDLE),
        "sweeps": {name: sweep(name, args.rounds) for name in SWEEPS},
    }
    for name, found in results["sweeps"].items():
        print(name, json.dumps(found["exponents"]))
    print(f"wrote {write_results('scaling', results)}")
    return 0


def sweep(name: str, rounds: int) -> dict[str, object]:
    """Vary one size and keep the others at their middle."""
    rows = []
    for value in SWEEPS[name]:
        timed = measure(**(MIDDLE | {name: value}), rounds=rounds)
        ratio = [d / b for d, b in zip(timed["dense"], timed["bands"], strict=True)]
        seconds = {way: spread(timed[way]) for way in WAYS}
        rows.append({name: value, "seconds": seconds, "dense_over_bands": spread(ratio)})
    sizes = np.log([row[name] for row in rows])
    exponents = {
        way: float(np.polyfit(sizes, np.log([r["seconds"][way]["median"] for r in rows]), 1)[0])
        for way in WAYS
    }
    return {"rows": rows, "exponents": exponents}


def measure(
    *, kernel: int, side: int, width: int, batch: int, rounds: int
) -> dict[str, list[float]]:
    """Time one layer both ways, in turn, in seconds."""
    torch.manual_seed(0)
    x = torch.randn(batch, width, side, side).contiguous(memory_format=torch.channels_last)
    layers = {
        way: SREConv2d(width, width, kernel, padding=kernel // 2, bias=False, dense=way == "dense")
        for way in WAYS
    }

    def run(layer: SREConv2d) -> None:
        with torch.inference_mode():
            layer(x)

    return interleave(
        {way: lambda i, layer=layer: run(layer) for way, layer in layers.items()}, rounds=rounds
    )


if __name__ == "__main__":
    sys.exit(main())
