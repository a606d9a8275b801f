"""The networks that the speed benchmarks compare, each as its makers would run it."""

import argparse
import gc
import importlib
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from bench.harness import circumstances, interleave, memory_mb, spread, write_results
from sre.models import build_model, count_parameters

KERNEL_SIZES = (9, 9, 5, 5)
CLASSES = 9
SIDE_PX = 32
Call = Callable[..., None]  # a pass or a step; takes the number of the round, if given
# Ours, the two packages of SRE-Conv's authors, and ordinary networks: torchvision's, and our twin.
TITLES = {
    "sre": "SRE-ResNet18, this library",
    "sre_conv": "SRE-ResNet18, sre-conv 1.0.2",
    "gmr_conv": "GMR-ResNet18, GMR-Conv 1.0.3",
    "resnet18": "ResNet-18, 3x3 stride-1 stem",
    "resnet18_compiled": "the same, torch.compile",
    "twin": "ResNet-18 with our stem and pools",
}


def build(name: str) -> nn.Module:
    """Build one of them, 64 channels wide and untrained: its time does not depend on learning."""
    torch.manual_seed(0)
    if name in ("sre", "twin"):
        model = {"sre": "sre_resnet18", "twin": "resnet18"}[name]
        return build_model(model, in_channels=3, num_classes=CLASSES)
    if name == "sre_conv":
        package = importlib.import_module("SRE_Conv")
        return package.sre_resnet18(
            num_classes=CLASSES, skip_first_maxpool=True, sre_conv_size=list(KERNEL_SIZES)
        )
    if name == "gmr_conv":
        package = importlib.import_module("GMR_Conv")
        return package.gmr_resnet18(
            num_classes=CLASSES, skip_first_maxpool=True, gmr_conv_size=list(KERNEL_SIZES)
        )
    model = importlib.import_module("torchvision").models.resnet18(num_classes=CLASSES)
    model.conv1, model.maxpool = nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.Identity()
    return model


def for_inference(name: str, model: nn.Module) -> nn.Module:
    """Make it as fast as its makers provide for: batch-norm folded where it can be."""
    model = model.eval()
    if name in ("sre", "twin"):
        model = model.fused()
    if name.startswith("resnet18"):
        fold(model)
    return prepared(name, model)


def prepared(name: str, model: nn.Module) -> nn.Module:
    """Lay its weights out as they are fastest, and compile it if its name says so."""
    if name.startswith("resnet18") or name == "twin":
        model = model.to(memory_format=torch.channels_last)
    return torch.compile(model) if name.endswith("_compiled") else model


def fold(model: nn.Module) -> None:
    """Fold each batch-norm of torchvision's ResNet into the convolution before it."""
    children = list(model.named_children())
    for (before, conv), (after, norm) in itertools.pairwise(children):
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            setattr(model, before, fuse_conv_bn_eval(conv, norm))
            setattr(model, after, nn.Identity())
    for _, child in children:
        fold(child)


def images(batch: int) -> Tensor:
    """Random images, in the layout that all of them but the authors' like best."""
    x = torch.randn(batch, 3, SIDE_PX, SIDE_PX)
    return x.contiguous(memory_format=torch.channels_last)


def train_step(name: str, model: nn.Module, x: Tensor) -> Call:
    """One step of SGD, the whole of it; call it as often as wanted."""
    model = prepared(name, model.train())
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6, momentum=0.9)
    labels = torch.arange(len(x), device=x.device) % CLASSES

    def step(_: int = 0) -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), labels).backward()
        optimizer.step()

    return step


def infer(model: nn.Module, x: Tensor) -> Call:
    """One pass forward."""

    def run(_: int = 0) -> None:
        with torch.inference_mode():
            model(x)

    return run


def peak_memory_mb(benchmark: str, name: str, threads: int) -> float:
    """Measure, in a process of its own, what a network and two of its passes add to the memory."""
    found = subprocess.run(
        [sys.executable, "-m", f"bench.{benchmark}", "--memory-of", name,
         "--threads", str(threads)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return json.loads(found.stdout.splitlines()[-1])


def report_peak(make: Callable[[], Call]) -> None:
    """Print the peak of this process over what it had before, in MB; Linux only."""
    gc.collect()
    before = memory_mb("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forget the peak so far
    run = make()
    for _ in range(2):
        run()
    print(json.dumps(memory_mb("VmHWM") - before))


def run_comparison(
    name: str,
    description: str,
    prepare: Callable[[str, int], Call],
    arguments: Sequence[str] | None,
    *,
    batches: Sequence[int],
    memory_batch: int,
) -> int:
    """Time every network at every batch size, in turn, and write bench/results/NAME.json.

    Args: prepare: of a network's name and a batch size, makes the call to be timed
    """
    parser = argparse.ArgumentParser(prog=f"python -m bench.{name}", description=description)
    parser.add_argument("--rounds", type=int, default=7, help="timed rounds of each contender")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batches", type=int, nargs="+", default=list(batches))
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument("--memory-of", choices=TITLES, help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    if args.memory_of:
        report_peak(lambda: prepare(args.memory_of, memory_batch))
        return 0
    names = [n for n in TITLES if not (args.no_compile and n.endswith("_compiled"))]
    results = {
        "made_by": f"python -m bench.{name}",
        **circumstances(),
        "titles": TITLES,
        "parameters": {n: count_parameters(build(n)) for n in names},
        "rows": [],
    }
    for batch in args.batches:
        calls = {n: prepare(n, batch) for n in names}
        first = warm(calls)
        rounds = args.rounds * (8 if batch < 8 else 1)
        timed = interleave(calls, rounds=rounds)
        row = {"batch": batch, "first_call_s": first}
        row |= {"seconds": {n: spread(values) for n, values in timed.items()}}
        row |= {ratio: spread(values) for ratio, values in compare(timed).items()}
        results["rows"].append(row)
        print(json.dumps(row))
    memory = {n: peak_memory_mb(name, n, args.threads) for n in names}
    results["peak_memory_mb"] = {"batch": memory_batch, **memory}
    print(json.dumps(results["peak_memory_mb"]))
    print(f"wrote {write_results(name, results)}")
    return 0


def compare(timed: dict[str, list[float]]) -> dict[str, list[float]]:
    """How many times faster ours was, round by round: than the authors', than ResNet's best."""
    plain = [name for name in timed if name.startswith("resnet18")]
    best = min(plain, key=lambda name: sorted(timed[name])[len(timed[name]) // 2])
    return {
        "authors_over_ours": [a / o for a, o in zip(timed["sre_conv"], timed["sre"], strict=True)],
        "resnet18_over_ours": [a / o for a, o in zip(timed[best], timed["sre"], strict=True)],
    }


def warm(calls: dict[str, Call]) -> dict[str, float]:
    """Call each twice, and say how long the first call took: compiling is part of the price."""
    took = {}
    for name, call in calls.items():
        start = time.perf_counter()
        call()
        took[name] = round(time.perf_counter() - start, 3)
        call()
    return took
