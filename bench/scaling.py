"""How the cost of one layer grows: python -m bench.scaling.

A radial convolution by band sums against the same with its dense kernel, forward, as the kernel,
the image, the width and the batch grow, and for volumes as the kernel and the side do; each pair in
turn. An exponent p says that time grows as the p-th power, fitted to the medians by least squares
on logarithms.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
import torch

from bench.harness import circumstances, interleave, spread, write_results
from sre.layers import RadialConv, SREConv2d, SREConv3d

MIDDLE: Mapping[int, Mapping[str, int]] = MappingProxyType(
    {
        2: MappingProxyType({"kernel": 9, "side": 32, "width": 64, "batch": 8}),
        3: MappingProxyType({"kernel": 5, "side": 16, "width": 32, "batch": 4}),
    }
)
SWEEPS: Mapping[str, tuple[int, str, tuple[int, ...]]] = MappingProxyType(
    {
        "kernel": (2, "kernel", (3, 5, 7, 9, 11, 13, 15)),
        "side": (2, "side", (28, 56, 112, 224)),
        "width": (2, "width", (16, 32, 64, 128, 256)),
        "batch": (2, "batch", (1, 4, 16, 64, 256)),
        "solid_kernel": (3, "kernel", (3, 5, 7)),
        "solid_side": (3, "side", (8, 16, 32)),
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
        "middle": {dims: dict(sizes) for dims, sizes in MIDDLE.items()},
        "sweeps": {name: sweep(name, args.rounds) for name in SWEEPS},
    }
    for name, found in results["sweeps"].items():
        print(name, json.dumps(found["exponents"]))
    print(f"wrote {write_results('scaling', results)}")
    return 0


def sweep(name: str, rounds: int) -> dict[str, object]:
    """Vary one size and keep the others at their middle."""
    dims, size, values = SWEEPS[name]
    rows = []
    for value in values:
        timed = measure(dims, **(MIDDLE[dims] | {size: value}), rounds=rounds)
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
    dims: int, *, kernel: int, side: int, width: int, batch: int, rounds: int
) -> dict[str, list[float]]:
    """Time one layer both ways, in turn, in seconds."""
    torch.manual_seed(0)
    kind, layout = {
        2: (SREConv2d, torch.channels_last), 3: (SREConv3d, torch.channels_last_3d)
    }[dims]  # fmt: skip
    x = torch.randn(batch, width, *(side,) * dims).contiguous(memory_format=layout)
    layers = {
        way: kind(width, width, kernel, padding=kernel // 2, bias=False, dense=way == "dense")
        for way in WAYS
    }

    def run(layer: RadialConv) -> None:
        with torch.inference_mode():
            layer(x)

    return interleave(
        {way: lambda i, layer=layer: run(layer) for way, layer in layers.items()}, rounds=rounds
    )


if __name__ == "__main__":
    sys.exit(main())
