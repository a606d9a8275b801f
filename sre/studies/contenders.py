"""Who takes part in an evaluation: networks, and their averages over rotations."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from sre.averaging import ROTATIONS, RotationAverage
from sre.checkpoints import CheckpointCard, load_checkpoint
from sre.data.table import DatasetEntry
from sre.errors import CheckpointError, SettingError
from sre.protocols import Protocol


@dataclass(frozen=True, slots=True)
class Contender:
    """A network that answers, or its average over rotations."""

    name: str  # unlike all others' of the evaluation
    path: Path
    card: CheckpointCard
    rotations: int  # that are averaged; 1: the network as it is
    model: nn.Module
    digest: str  # of the file

    @property
    def side_px(self) -> int:
        """Side of the images that it takes."""
        return self.card.side_px


def load_contenders(
    paths: Sequence[Path],
    entry: DatasetEntry,
    protocol: Protocol,
    *,
    average_rotations: int = 1,
    device: str = "cpu",
) -> list[Contender]:
    """Load checkpoints; with ``average_rotations`` above 1, each one's average comes after it.

    Raises: CheckpointError: none, one twice, or one that does not fit the data set
        SettingError: average_rotations is out of range
    """
    if not paths:
        raise CheckpointError(f"no checkpoint of {entry.name} was given or found; train one first")
    if len({path.resolve() for path in paths}) < len(paths):
        raise CheckpointError("a checkpoint was given twice; give each once")
    if average_rotations != 1 and not ROTATIONS[0] <= average_rotations <= ROTATIONS[1]:
        raise SettingError(
            f"average_rotations must be 1 or from {ROTATIONS[0]} to {ROTATIONS[1]}, "
            f"got {average_rotations}; try 8"
        )
    found = []
    for path, name in zip(paths, _names(paths), strict=True):
        network, card = load_checkpoint(path, device=device)
        if (card.classes, card.in_channels) != (entry.classes, entry.channels):
            raise CheckpointError(
                f"{path.name} has other classes or channels than the data set; choose another"
            )
        model, digest = network.fused(), hashlib.sha256(path.read_bytes()).hexdigest()
        found.append(Contender(name, path, card, 1, model, digest))
        if average_rotations > 1:
            average = RotationAverage(
                model, average_rotations, is_multi_label=card.is_multi_label,
                interpolation=protocol.interpolation,
            )  # fmt: skip
            told = f"{name}, mean of {average_rotations} rotations"
            found.append(Contender(told, path, card, average_rotations, average, digest))
    return found


def _names(paths: Sequence[Path]) -> list[str]:
    # Files of two folders may have the same name, as those of two seeds do.
    names = [path.name for path in paths]
    return [
        name if names.count(name) == 1 else "/".join(path.resolve().parts[-2:])
        for path, name in zip(paths, names, strict=True)
    ]
