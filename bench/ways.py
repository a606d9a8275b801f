"""Which of the two fast ways is quicker, and does a layer choose it? python -m bench.ways.

Convolutions by sums over bands and by products of spectra, in turn, over a grid of layers, sides
and batches; forward, and forward with both gradients. The layer's own choice (sre.spectra) counts
multiply-adds; the constants that weigh them were fitted to such a table.
"""

import argparse
import json
import math
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence

import torch

from bench.harness import circumstances, interleave, spread, write_results
from sre.bands import band_conv
from sre.spectra import prefers_spectra, spectral_conv

# Channels in and out, side of the image, side of the kernel: of the ResNets here at widths 16, 32
# and 64, and some beyond these.
LAYERS = (
    (16, 16, 28, 5), (16, 16, 28, 9), (16, 16, 28, 15), (32, 32, 14, 5), (32, 32, 14, 9),
    (32, 32, 28, 9), (64, 64, 7, 5), (64, 64, 14, 9), (64, 64, 28, 3), (64, 64, 28, 5),
    (64, 64, 28, 15), (64, 64, 32, 9), (64, 128, 16, 9), (128, 128, 14, 5), (128, 128, 16, 9),
    (128, 256, 8, 5), (256, 256, 8, 5), (256, 256, 14, 3), (512, 512, 4, 5),
)  # fmt: skip
BATCHES = (1, 4, 16, 64)
WAYS: Mapping[str, Callable[..., torch.Tensor]] = {"bands": band_conv, "spectra": spectral_conv}
TASKS = ("forward", "training")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write bench/results/ways.json."""
    parser = argparse.ArgumentParser(prog="python -m bench.ways", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="timed rounds of each pair")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    results = {"made_by": "python -m bench.ways", **circumstances(), "rows": []}
    for layer in LAYERS:
        for batch in BATCHES:
            results["rows"].append(measure(*layer, batch, args.rounds))
            print(json.dumps(results["rows"][-1]))
    results["choice"] = {task: judge(results["rows"], task) for task in TASKS}
    print(json.dumps(results["choice"]))
    print(f"wrote {write_results('ways', results)}")
    return 0


def measure(
    channels: int, out_channels: int, side: int, kernel: int, batch: int, rounds: int
) -> dict[str, object]:
    """Time one layer both ways; seconds."""
    x = torch.randn(batch, side, side, channels)
    weight = torch.randn(kernel // 2 + 1, channels, out_channels)
    upstream = torch.randn(batch, side, side, out_channels)

    def forward(way: str) -> None:
        with torch.inference_mode():
            WAYS[way](x, weight, None, kernel, True)

    def training(way: str) -> None:
        inputs = x.detach().requires_grad_(), weight.detach().requires_grad_()
        torch.autograd.grad(WAYS[way](*inputs, None, kernel, True), inputs, upstream)

    chosen = "spectra" if prefers_spectra(tuple(x.shape), out_channels, kernel) else "bands"
    row: dict[str, object] = {
        "channels": channels, "out_channels": out_channels, "side": side, "kernel": kernel,
        "batch": batch, "chosen": chosen,
    }  # fmt: skip
    for task, run in zip(TASKS, (forward, training), strict=True):
        calls = {way: (lambda _, way=way, run=run: run(way)) for way in WAYS}
        timed = interleave(calls, rounds=rounds, warm_up=2)
        ratio = [b / s for b, s in zip(timed["bands"], timed["spectra"], strict=True)]
        row[task] = {way: spread(timed[way]) for way in WAYS} | {"ratio": spread(ratio)}
    return row


def judge(rows: Sequence[Mapping[str, object]], task: str) -> dict[str, float]:
    """Sum up: how often the choice is the quicker way, and what each choice costs over the better.

    Costs are geometric means of times over that of the quicker way.
    """
    times = [{way: row[task][way]["median"] for way in WAYS} for row in rows]
    best = [min(pair.values()) for pair in times]

    def slower(chosen: Sequence[str]) -> float:
        excess = [math.log(pair[way] / b) for pair, way, b in zip(times, chosen, best, strict=True)]
        return math.exp(statistics.fmean(excess))

    chosen = [row["chosen"] for row in rows]
    return {
        "layers": len(rows),
        "right": sum(pair[way] == b for pair, way, b in zip(times, chosen, best, strict=True)),
        "over_best": slower(chosen),
        "bands_over_best": slower(["bands"] * len(rows)),
        "spectra_over_best": slower(["spectra"] * len(rows)),
    }


if __name__ == "__main__":
    sys.exit(main())
