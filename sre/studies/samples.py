"""Which test images are worth turning?"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import nn

from sre.data.split import Split
from sre.data.store import load_split
from sre.data.table import DatasetEntry, find_dataset
from sre.errors import CheckpointError, SettingError
from sre.evaluation import FEW_ANGLES_DEG, classify, decide
from sre.protocols import find_protocol
from sre.studies.orbit import load_fresh

KINDS = ("random", "cnn_wrong_turned", "sre_wrong")
_BATCH, _MOST = 32, 512


@dataclass(frozen=True, slots=True)
class GalleryView:
    """Some test images of a set, and how many there are of the kind."""

    total: int
    indices: np.ndarray  # (n,)
    labels: np.ndarray  # (n,) or (n, L)
    images: np.ndarray  # uint8 (n, H, W) or (n, H, W, 3)


@dataclass(frozen=True, slots=True)
class FoundView:
    """A test image of the kind that was looked for, and what is special about it."""

    index: int
    note: str


def find_images(dataset: str) -> DatasetEntry:
    """Look up a set of images.

    Raises: UnknownNameError: there is none of that name; SettingError: the set holds volumes
    """
    entry = find_dataset(dataset)
    if entry.dimensions != 2:
        raise SettingError(
            f"{entry.title} holds volumes, which the Lab does not turn yet; choose a 2-D data set"
        )
    return entry


def load_test(dataset: str, *, data_dir: Path) -> Split:
    """Load the test images of a 2-D set.

    Raises: as find_images, and DataError as load_split
    """
    return load_split(find_images(dataset).name, "test", data_dir=data_dir)


def check_index(split: Split, index: int) -> int:
    """Raises: SettingError: there is no such sample"""
    if not 0 <= index < len(split):
        raise SettingError(f"sample must be from 0 to {len(split) - 1}, got {index}")
    return index


def list_gallery(
    dataset: str, *, label: int | None, offset: int, limit: int, data_dir: Path
) -> GalleryView:
    """List test images, of one class or of all, from ``offset`` on.

    Raises: SettingError: a number is out of range; and as ``load_test``
    """
    split, classes = load_test(dataset, data_dir=data_dir), find_dataset(dataset).classes
    if label is not None and not 0 <= label < len(classes):
        raise SettingError(f"the class must be from 0 to {len(classes) - 1}, got {label}")
    if offset < 0 or not 1 <= limit <= 200:
        raise SettingError(
            f"offset must be at least 0 and limit from 1 to 200, got {offset}, {limit}"
        )
    if label is None:
        indices = np.arange(len(split))
    else:
        members = split.labels[:, label] == 1 if split.labels.ndim == 2 else split.labels == label
        indices = np.flatnonzero(members)
    some = indices[offset : offset + limit]
    return GalleryView(len(indices), some, split.labels[some], split.images[some])


def find_sample(
    dataset: str,
    kind: str,
    *,
    after: int | None,
    protocol: str,
    checkpoints: Sequence[Path],
    data_dir: Path,
) -> FoundView:
    """Look for a test image of a kind, from the one after ``after`` on, around to the beginning.

    ``random``; ``cnn_wrong_turned``: the plain network is right upright, and wrong at one of twelve
    angles at least; ``sre_wrong``: the SRE network is wrong upright.

    Raises: SettingError: unknown kind, or none among the images looked at; CheckpointError: the
        data set lacks the network; and as ``load_test``
    """
    if kind not in KINDS:
        raise SettingError(f"unknown kind {kind!r}; choose from {', '.join(KINDS)}")
    split = load_test(dataset, data_dir=data_dir)
    if kind == "random":
        return FoundView(int(np.random.default_rng().integers(len(split))), "")
    arm = "plain" if kind == "cnn_wrong_turned" else "sre"
    loaded = [load_fresh(path) for path in checkpoints]
    suited = [pair for pair in loaded if pair[1].arm == arm]
    if not suited:
        raise CheckpointError(f"{dataset} has no {arm} checkpoint; train one")
    model, card = suited[0]
    start = 0 if after is None else (after + 1) % len(split)
    order = np.roll(np.arange(len(split)), -start)[:_MOST]
    for begin in range(0, len(order), _BATCH):
        some = order[begin : begin + _BATCH]
        wrong = {
            angle: _wrong(model, card.side_px, split, some, protocol, angle, card.is_multi_label)
            for angle in (FEW_ANGLES_DEG if arm == "plain" else FEW_ANGLES_DEG[:1])
        }
        upright = wrong.pop(0.0)
        if arm == "sre" and upright.any():
            return FoundView(int(some[upright.argmax()]), "SRE is wrong here, upright already.")
        turned = np.stack(list(wrong.values())) & ~upright if wrong else np.zeros((1, 1), bool)
        if turned.any():
            place = int(turned.any(0).argmax())
            degrees = round(list(wrong)[turned[:, place].argmax()])
            return FoundView(
                int(some[place]),
                f"The CNN is right upright, and wrong at {turned[:, place].sum()} of "
                f"{len(wrong)} other angles, first at {degrees}°.",
            )
    what = "the CNN gets wrong when turned" if arm == "plain" else "SRE gets wrong"
    raise SettingError(f"none that {what} among the {len(order)} images looked at; try another set")


def _wrong(
    model: nn.Module,
    side_px: int,
    split: Split,
    indices: np.ndarray,
    protocol: str,
    angle_deg: float,
    is_multi_label: bool,
) -> np.ndarray:
    found = classify(
        model,
        split.images[indices],
        find_protocol(protocol),
        side_px=side_px,
        angle_deg=angle_deg,
        is_multi_label=is_multi_label,
    )
    differs = decide(found, is_multi_label=is_multi_label) != split.labels[indices]
    return differs.reshape(len(indices), -1).any(1)
