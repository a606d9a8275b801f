"""Passes and training steps on a GPU, and what bounds them: python -m bench.gpu.

The networks of bench.forward in single precision, in TF32 and in bfloat16; small batches also as
recorded CUDA graphs. Beside the times stand the device's own ceilings, found in the same run: the
rate of a large matrix product and that of a large copy. Of each, our network and ResNet-18 are
given their share: multiply-adds, and the least that has to be moved, each convolution's input and
output once and its weights. A small share of both means that starting kernels takes the time.
"""

import argparse
import itertools
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import nn

from bench.harness import circumstances, interleave, spread, write_results
from bench.networks import (
    SIDE_PX,
    TITLES,
    Call,
    build,
    compare,
    for_inference,
    images,
    infer,
    train_step,
)
from sre.layers import RadialConv
from sre.models import count_multiply_adds, count_parameters

BATCHES = (1, 36, 256, 1024)
GRAPH_BATCHES = 36  # up to here, kernels are shorter than it takes to start them
PRECISIONS = ("float32", "tf32", "bfloat16")
TASKS = ("forward", "training step")
GRAPH = ", CUDA graph"
ROUND_S = 0.05  # of calls between two looks at the clock
STEP_PASSES = 3  # a training step: forward, and gradients of the input and of the weights


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write bench/results/gpu.json."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__)
    parser.add_argument("--device", default="cuda", help="cpu tries the script, not the speed")
    parser.add_argument("--rounds", type=int, default=15, help="timed rounds of each contender")
    parser.add_argument("--batches", type=int, nargs="+", default=list(BATCHES))
    parser.add_argument("--networks", nargs="+", choices=TITLES, default=list(TITLES))
    parser.add_argument("--result", default="gpu", help="name of the file in bench/results/")
    args = parser.parse_args(arguments)
    device = torch.device(args.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("This machine has no GPU that PyTorch can use; run it on one that has.")
        return 1
    results = {
        "made_by": "python -m bench.gpu",
        **circumstances(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU",
        "titles": {n: TITLES[n] for n in args.networks},
        "parameters": {n: count_parameters(build(n)) for n in args.networks},
        "ceilings": {},
        "rows": [],
    }
    for precision in PRECISIONS:
        with using(precision):
            results["ceilings"][precision] = ceilings(precision, device)
            for task, batch in itertools.product(TASKS, args.batches):
                row = {"task": task, "precision": precision, "batch": batch}
                row |= measure(args.networks, row, device, args.rounds)
                row |= shares(row, results["ceilings"][precision])
                results["rows"].append(row)
                print(json.dumps(row), flush=True)
                written = write_results(args.result, results)  # a run cut short keeps what it has
    print(f"wrote {written}")
    return 0


@contextmanager
def using(precision: str) -> Iterator[None]:
    """Let products of single precision be rounded to TF32 or not, whatever is the default."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = precision == "tf32"
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


def measure(names: Sequence[str], row: dict, device: torch.device, rounds: int) -> dict:
    """Time every network in turn at one task, precision and batch size; and the memory it takes."""
    calls: dict[str, Repeated] = {}
    memory, failed, summed = {}, {}, 0
    for name in names:
        try:
            model = build(name).to(device)
            call = prepare(name, model, row, device)
            memory[name] = peak_memory_mb(call, device)
            calls[name] = repeated(call, device)
            if device.type == "cuda" and row["batch"] <= GRAPH_BATCHES and "compiled" not in name:
                calls[name + GRAPH] = repeated(recorded(call), device)
        except RuntimeError as error:  # out of memory, or what a package cannot do
            failed[name] = str(error).splitlines()[0]
        if name == "sre" and name in calls:
            summed = count_summed(name, row, device)
    timed = {
        name: [seconds / calls[name].often for seconds in found]
        for name, found in interleave(calls, rounds=rounds).items()
    }
    found = {
        "layers_by_band_sums": summed,
        "seconds": {name: spread(values) for name, values in timed.items()},
        "peak_memory_mb": memory,
        "failed": failed,
    }
    graphs = {n.removesuffix(GRAPH): t for n, t in timed.items() if n.endswith(GRAPH)}
    plain = {n: t for n, t in timed.items() if not n.endswith(GRAPH)}
    for ending, alike in (("", plain), ("_as_graphs", graphs)):
        if {"sre", "sre_conv", "resnet18"} <= alike.keys():
            ratios = compare(alike).items()
            found |= {ratio + ending: spread(values) for ratio, values in ratios}
    return found


def prepare(name: str, model: nn.Module, row: dict, device: torch.device) -> Call:
    """A pass or a step of one network, as its makers would run it in this precision."""
    x = images(row["batch"]).to(device)
    is_half = row["precision"] == "bfloat16"
    if row["task"] == "forward":
        model = for_inference(name, model)
        return infer(model.bfloat16(), x.bfloat16()) if is_half else infer(model, x)
    step = train_step(name, model, x)

    def autocast_step(_: int = 0) -> None:
        with torch.autocast(device.type, torch.bfloat16):
            step()

    return autocast_step if is_half else step


def count_summed(name: str, row: dict, device: torch.device) -> int:
    """How many of our layers chose band sums for this input."""
    model, chosen = build(name).to(device), []

    def note(layer: RadialConv, inputs: tuple[torch.Tensor, ...]) -> None:
        chosen.append(layer.takes_band_sums(inputs[0]))

    for module in model.modules():
        if isinstance(module, RadialConv):
            module.register_forward_pre_hook(note)
    prepare("", model, row, device)()
    return sum(chosen)


@dataclass(frozen=True)
class Repeated:
    """A call so often in a row that the clock and the wait for the device do not count."""

    call: Call
    device: torch.device
    often: int

    def __call__(self, _: int = 0) -> None:
        for _ in range(self.often):
            self.call()
        synchronize(self.device)


def repeated(call: Call, device: torch.device) -> Repeated:
    """Repeat it for about ROUND_S."""
    once = Repeated(call, device, often=1)
    once()
    start = time.perf_counter()
    once()
    return replace(once, often=max(1, min(1000, round(ROUND_S / (time.perf_counter() - start)))))


def recorded(call: Call) -> Call:
    """Record it once as a CUDA graph, on a side stream as PyTorch's notes on them ask."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()

    def replay(_: int = 0) -> None:
        graph.replay()

    return replay


def peak_memory_mb(call: Call, device: torch.device) -> float | None:
    """What a call adds to the device's memory at most; None where that is not counted."""
    call()
    if device.type != "cuda":
        return None
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    call()
    synchronize(device)
    return (torch.cuda.max_memory_allocated(device) - before) / 2**20


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def ceilings(precision: str, device: torch.device) -> dict[str, float]:
    """The device's best: multiply-adds a second of a large product, bytes a second of a copy."""
    side, length = (8192, 2**28) if device.type == "cuda" else (512, 2**22)
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    a = torch.randn(side, side, device=device, dtype=dtype)
    x, y = (torch.zeros(length, device=device) for _ in range(2))
    return {
        "multiply_adds_per_s": side**3 / fastest(lambda: a @ a, device),
        "bytes_per_s": 2 * x.nbytes / fastest(lambda: y.copy_(x), device),
    }


def fastest(call: Callable[[], object], device: torch.device) -> float:
    """The shortest of some calls, in seconds."""
    found = []
    for _ in range(10):
        synchronize(device)
        start = time.perf_counter()
        call()
        synchronize(device)
        found.append(time.perf_counter() - start)
    return min(found)


def shares(row: dict, ceiling: dict[str, float]) -> dict:
    """Of our network and of ResNet-18: the share of both ceilings that the fastest way reached."""
    found = {}
    passes = STEP_PASSES if row["task"] == "training step" else 1
    for name in ("sre", "resnet18"):
        times = [s["median"] for n, s in row["seconds"].items() if n in (name, name + GRAPH)]
        if not times:
            continue
        work = passes * row["batch"] / min(times)
        itemsize = 2 if row["precision"] == "bfloat16" else 4
        adds, values = demands(name, row["batch"])
        found[name] = {
            "of_multiply_adds": work * adds / ceiling["multiply_adds_per_s"],
            "of_bandwidth": work * values * itemsize / ceiling["bytes_per_s"],
        }
    return {"shares": found}


@lru_cache
def demands(name: str, batch: int) -> tuple[float, float]:
    """Of an image: multiply-adds, of ours by band sums, and how many numbers have to be moved."""
    model, moved = for_inference(name, build(name)), [0.0]
    adds = count_multiply_adds(model, in_channels=3, side=SIDE_PX)

    def count(layer: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        weights = sum(p.numel() for p in layer.parameters())
        moved[0] += inputs[0].numel() + output.numel() + weights / batch

    for module in model.modules():
        if isinstance(module, RadialConv | nn.Conv2d | nn.Linear):
            module.register_forward_hook(count)
    with torch.inference_mode():
        model(images(1))
    return adds, moved[0]


if __name__ == "__main__":
    sys.exit(main())
