"""What every benchmark does: interleave, take medians and quartiles, write down the machine."""

import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
RESULTS_DIR = ROOT / "bench" / "results"


def interleave(
    contenders: Mapping[str, Callable[[int], object]], *, rounds: int, warm_up: int = 1
) -> dict[str, list[float]]:
    """Time each contender once a round, in turn, so that a slow minute hits all alike; seconds."""
    for call in contenders.values():
        for i in range(warm_up):
            call(-1 - i)
    timed: dict[str, list[float]] = {name: [] for name in contenders}
    for i in range(rounds):
        for name, call in contenders.items():
            start = time.perf_counter()
            call(i)
            timed[name].append(time.perf_counter() - start)
    return timed


def spread(values: list[float]) -> dict[str, float]:
    """Median and quartiles."""
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return {"median": median, "q1": low, "q3": high, "n": len(values)}


def circumstances() -> dict[str, object]:
    """Date, commit, machine, threads and versions."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return {
        "date": datetime.now(UTC).date().isoformat(),
        # Where the code was copied without its newest history, whoever copied it says so.
        "commit": os.environ.get("SRE_BENCH_COMMIT") or commit.stdout.strip() or "unknown",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_before": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "versions": dict(_versions()) | {"python": platform.python_version()},
    }


def _versions() -> Iterator[tuple[str, str]]:
    for name in ("torch", "numpy", "pillow", "gradio"):
        with suppress(PackageNotFoundError):  # a machine for training may lack what the page needs
            yield name, version(name)


def memory_mb(field: str) -> float:
    """Resident memory of this process: VmRSS now, VmHWM at its peak; Linux only.

    Not from ``getrusage``, whose peak begins with that of the process that started this one.
    """
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"this system does not say {field}")


def write_results(name: str, results: Mapping[str, object]) -> Path:
    """Write a result file, and give its path."""
    RESULTS_DIR.mkdir(parents=True, exist_ok=True)
    path = RESULTS_DIR / f"{name}.json"
    path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return path


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next(
        (x.split(":", 1)[1].strip() for x in lines if x.startswith("model name")), "unknown"
    )
