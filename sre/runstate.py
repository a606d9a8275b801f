"""How far a training run has come, as a file, from which a run that broke off goes on.

Everything that the next epoch depends on is in there: weights, the optimiser's moments, the random
generator, the best epoch so far. On a CPU the weights that come of it are the same to the last bit.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from sre.errors import TrainingError
from sre.whole import replacing

FORMAT = 1


def take_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Copy weights, buffers and moments to the CPU, under names that ``put_state`` knows."""
    state = {f"model.{name}": value for name, value in model.state_dict().items()}
    for number, moments in optimizer.state_dict()["state"].items():
        state |= {f"optimizer.{number}.{name}": value for name, value in moments.items()}
    layout = torch.contiguous_format  # the file takes no other
    return {n: value.detach().cpu().clone(memory_format=layout) for n, value in state.items()}


def put_state(
    state: Mapping[str, Tensor], model: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    """Bring a model and its optimiser back to where ``take_state`` found them."""
    model.load_state_dict(part_of(state, "model"))
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    moments: dict[int, dict[str, Tensor]] = {}
    for name, value in part_of(state, "optimizer").items():
        number, of = name.split(".")
        weights = parameters[int(number)]
        # A copy, as steps change it in place; laid out as the weights are, since fused optimisers
        # take both in the order of memory.
        like = weights if value.shape == weights.shape else value
        copy = torch.empty_like(like, dtype=value.dtype, requires_grad=False).copy_(value)
        moments.setdefault(int(number), {})[of] = copy
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": moments, "param_groups": groups})


def part_of(state: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    """Select the tensors of one part, under their own names."""
    return {
        name.removeprefix(f"{part}."): value
        for name, value in state.items()
        if name.startswith(f"{part}.")
    }


def save_run(
    path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, object], *, settings: str
) -> None:
    """Write the file whole or not at all; what was there before stays until then.

    Raises: TrainingError: it cannot be written
    """
    metadata = {"format": str(FORMAT), "settings": settings, "facts": json.dumps(facts)}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as part:
            save_file(dict(tensors), part, metadata=metadata)
            with part.open("rb+") as file:
                os.fsync(file.fileno())  # else a power cut could leave the name without its bytes
    except (OSError, SafetensorError) as error:
        cause = getattr(error, "strerror", None) or error
        raise TrainingError(
            f"cannot write {path.name} ({cause}); free some space and start the run again, which "
            "goes on from the last epoch that was written"
        ) from error


def load_facts(path: Path, *, settings: str) -> dict[str, Any] | None:
    """Read the facts alone; None where no run of these settings has left a sound file."""
    try:
        with safe_open(path, framework="pt") as file:
            return _facts(file.metadata(), settings)
    except (OSError, SafetensorError, KeyError, ValueError):
        return None


def _facts(metadata: Mapping[str, str] | None, settings: str) -> dict[str, Any] | None:
    found = metadata or {}
    if found.get("format") != str(FORMAT) or found.get("settings") != settings:
        return None
    return json.loads(found["facts"])


def load_run(path: Path, *, settings: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Read tensors and facts back; None where no run of these settings has left a sound file."""
    try:
        with safe_open(path, framework="pt") as file:
            facts = _facts(file.metadata(), settings)
            names = list(file.keys()) if facts is not None else []
            tensors = {name: file.get_tensor(name) for name in names}
        return None if facts is None else (tensors, facts)
    except (OSError, SafetensorError, KeyError, ValueError):
        return None
