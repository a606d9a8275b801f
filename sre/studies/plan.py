"""What would a training job cost? Its size is counted, and a few of its steps are timed."""

import json
import subprocess
import sys
import threading
from functools import lru_cache
from pathlib import Path

import torch
from torch import nn

from sre.data.store import load_split
from sre.data.table import find_dataset
from sre.errors import TrainingError
from sre.models import build_model, count_multiply_adds, count_parameters
from sre.studies.estimate import Estimate, estimate_run
from sre.studies.job_settings import JobSettings

PATIENCE_S = 90.0
_PROGRAM = Path(__file__).resolve().parents[2]
_COUNTING = threading.Lock()  # the largest networks take half a gigabyte while they are counted


def count_costs(settings: JobSettings) -> tuple[int, int]:
    """Count parameters, and multiply-adds of one image."""
    entry, config = find_dataset(settings.dataset), settings.config
    with _COUNTING:
        return _count(
            settings.model,
            entry.channels,
            len(entry.classes),
            settings.width,
            settings.kernel_sizes,
            settings.blur_pools,
            config.side_px,
        )


@lru_cache(maxsize=256)
def _count(
    model: str,
    channels: int,
    classes: int,
    width: int,
    kernels: tuple[int, ...],
    blurs: bool,
    side: int,
) -> tuple[int, int]:
    network = build_model(
        model,
        in_channels=channels,
        num_classes=classes,
        width=width,
        kernel_sizes=kernels,
        blur_pools=blurs,
    )
    return count_parameters(network), count_multiply_adds(network, in_channels=channels, side=side)


def build_network(settings: JobSettings) -> nn.Module:
    """Build the network that a job trains, its weights drawn anew."""
    entry = find_dataset(settings.dataset)
    return build_model(
        settings.model,
        in_channels=entry.channels,
        num_classes=len(entry.classes),
        width=settings.width,
        kernel_sizes=settings.kernel_sizes,
        blur_pools=settings.blur_pools,
    )


def estimate_job(settings: JobSettings, *, data_dir: Path, device: str) -> Estimate:
    """Time a few steps of a job, and a part of its validation, on a device.

    Raises: SREError: the data is not there, or the network does not take these steps
    """
    entry = find_dataset(settings.dataset)
    parts = (load_split(entry.name, s, data_dir=data_dir) for s in ("train", "val"))
    torch.manual_seed(settings.config.seed)
    model = build_network(settings).to(device)
    return estimate_run(model, *parts, config=settings.config, is_multi_label=entry.is_multi_label)


def estimate_apart(
    settings: JobSettings, *, data_dir: Path, device: str, patience_s: float = PATIENCE_S
) -> Estimate:
    """The same in a process of its own: too large a network must not take the app down with it.

    Raises: SREError: as above; TrainingError: it takes too long, or too much memory
    """
    arguments = [sys.executable, "-m", "sre", "estimate", "--device", device]
    try:
        done = subprocess.run(
            [*arguments, "--data-dir", str(data_dir.resolve())],
            input=json.dumps(settings.to_request()),
            cwd=_PROGRAM,
            capture_output=True,
            text=True,
            check=False,
            timeout=patience_s,
        )
    except subprocess.TimeoutExpired as error:
        raise TrainingError(
            f"a few steps of this take more than {patience_s:g} seconds here; choose a smaller "
            "width or batch"
        ) from error
    if done.returncode == 0:
        return Estimate(**json.loads(done.stdout))
    said = done.stderr.strip().rpartition("error: ")[2]
    if done.returncode == 2 and "\n" not in said:
        raise TrainingError(said)
    raise TrainingError(
        "a few steps of this could not be taken, perhaps for lack of memory; choose a smaller "
        "width or batch"
    )
