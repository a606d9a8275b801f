"""What data sets exist: the 18 of MedMNIST, as its package describes them, and two built in."""

import ast
import difflib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from sre.errors import SettingError, UnknownNameError

Task = Literal["binary-class", "multi-class", "ordinal-regression", "multi-label"]
Source = Literal["medmnist", "built-in"]


@dataclass(frozen=True, slots=True)
class Archive:
    """One downloadable file: a data set at one size."""

    url: str
    md5: str
    bytes: int | None  # None: not known before the server says so


@dataclass(frozen=True, slots=True)
class DatasetEntry:
    """One data set; ``classes`` are in label order, ``splits`` maps a split to its image count."""

    name: str
    title: str
    task: Task
    classes: tuple[str, ...]
    channels: Literal[1, 3]
    dimensions: Literal[2, 3]
    splits: Mapping[str, int]
    licence: str
    citation: str
    description: str
    source: Source
    archives: Mapping[int, Archive]  # by image side in px; empty: built in
    own_side: int = 28  # of a built-in set

    @property
    def sizes(self) -> tuple[int, ...]:
        """Image sides on offer, in px, smallest first."""
        return tuple(self.archives) or (self.own_side,)

    @property
    def is_multi_label(self) -> bool:
        return self.task == "multi-label"

    def check_size(self, size: int) -> None:
        """Raises: SettingError: the set does not come in that size"""
        if size not in self.sizes:
            sizes = ", ".join(map(str, self.sizes))
            raise SettingError(f"{self.title} has no size of {size} px; choose from {sizes}")

    def archive(self, size: int) -> Archive:
        """Raises: SettingError: the set is built in, or does not come in that size"""
        if not self.archives:
            raise SettingError(f"{self.title} is built in and has no file; use it as it is")
        self.check_size(size)
        return self.archives[size]

    def file_name(self, size: int) -> str:
        """Name the file as MedMNIST does: the 28 px one without its size."""
        self.archive(size)
        return f"{self.name}.npz" if size == 28 else f"{self.name}_{size}.npz"

    def image_shape(self, size: int) -> tuple[int, ...]:
        """Shape of one stored image: (H, W), (H, W, 3) or (D, H, W)."""
        return (size,) * self.dimensions + ((3,) if self.channels == 3 else ())

    def bytes_at_most(self, size: int) -> int:
        """Size of all images uncompressed: the download is smaller, by an amount not known here."""
        return sum(self.splits.values()) * prod(self.image_shape(size))


def find_dataset(name: str) -> DatasetEntry:
    """Raises: UnknownNameError: no data set has that name, or what names it is not installed"""
    if name in DATASETS:
        return DATASETS[name]
    if len(DATASETS) == len(_BUILT_IN):
        raise UnknownNameError(
            f"there are only {', '.join(DATASETS)} here, not {name!r}, as medmnist is not "
            "installed; run pip install 'sre-lab[train]'"
        )
    close = difflib.get_close_matches(name, DATASETS, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"choose from {', '.join(DATASETS)}"
    raise UnknownNameError(f"unknown data set {name!r}; {hint}")


# The package tells no sizes: these are of files whose md5 equals the official one.
_KNOWN_BYTES = {
    "breastmnist": 559_580,
    "retinamnist": 3_291_041,
    "adrenalmnist3d": 276_833,
    "adrenalmnist3d_64": 1_880_591,
}
_MEDMNIST_PAPER = (
    "Yang et al., MedMNIST v2, Scientific Data 10, 41 (2023), "
    "https://doi.org/10.1038/s41597-022-01721-8"
)


def _read_info() -> dict[str, dict]:
    """Read ``medmnist.INFO`` without running its package.

    Importing medmnist pulls in torch and takes seconds, and even its ``info`` module makes a
    folder in the home directory; the table itself is a literal. Empty where medmnist is missing,
    which the layers and networks do not need.
    """
    spec = importlib.util.find_spec("medmnist")
    if spec is None or not spec.submodule_search_locations:
        return {}
    path = Path(spec.submodule_search_locations[0]) / "info.py"
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) == "INFO":
            return ast.literal_eval(node.value)
    raise ImportError(f"{path} holds no INFO table; install medmnist 3.0.2")


def _medmnist_entry(name: str, info: dict) -> DatasetEntry:
    archives = {}
    for size in (28, 64, 128, 224):
        suffix = "" if size == 28 else f"_{size}"
        if url := info.get(f"url{suffix}"):
            known = _KNOWN_BYTES.get(name + suffix)
            archives[size] = Archive(url, info[f"MD5{suffix}"], known)
    origin = info["description"].split(". ")[0].rstrip(".")
    return DatasetEntry(
        name=name,
        title=info["python_class"],
        # MedMNIST says "multi-label, binary-class" of sets with a yes or no for every label.
        task="multi-label" if "multi-label" in info["task"] else info["task"],
        classes=tuple(info["label"][str(i)] for i in range(len(info["label"]))),
        channels=info["n_channels"],
        dimensions=3 if name.endswith("3d") else 2,
        splits=MappingProxyType(dict(info["n_samples"])),
        licence=info["license"],
        citation=f"{_MEDMNIST_PAPER}; source: {origin}",
        description=info["description"],
        source="medmnist",
        archives=MappingProxyType(archives),
    )


_CELLS = DatasetEntry(
    name="cells",
    title="Drawn cells",
    task="multi-class",
    classes=(
        "round nucleus",
        "small dark nucleus",
        "kidney-shaped nucleus",
        "two lobes",
        "two lobes, pink granules",
        "three to five lobes",
        "coarse dark granules",
        "clump of platelets",
    ),
    channels=3,
    dimensions=2,
    splits=MappingProxyType({"train": 4000, "val": 500, "test": 1000}),
    licence="the licence of this project",
    citation="drawn by sre/data/cells.py of this project, from a fixed seed",
    description=(
        "Stained cells on a blood-smear background, drawn by a program, not photographed: a "
        "stand-in that needs no download. The classes differ in shape, nucleus and granules; "
        "every cell is drawn at a random angle and mirrored at random, so that orientation "
        "carries no information."
    ),
    source="built-in",
    archives=MappingProxyType({}),
)
_DIGITS = DatasetEntry(
    name="digits",
    title="Handwritten digits",
    task="multi-class",
    classes=tuple("0123456789"),
    channels=1,
    dimensions=2,
    splits=MappingProxyType({"train": 1197, "val": 200, "test": 400}),
    licence="CC BY 4.0",
    citation=(
        "Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning "
        "Repository (1998), https://doi.org/10.24432/C50P49; as shipped with scikit-learn"
    ),
    description=(
        "The 1,797 real handwritten digits of 8x8 pixels that come with scikit-learn, enlarged "
        "smoothly to 28x28. A counter-example: a 6 is a turned 9, so orientation carries the "
        "label and a network that ignores it must confuse them."
    ),
    source="built-in",
    archives=MappingProxyType({}),
)

_BUILT_IN = {"cells": _CELLS, "digits": _DIGITS}
DATASETS: Mapping[str, DatasetEntry] = MappingProxyType(
    {name: _medmnist_entry(name, info) for name, info in _read_info().items()} | _BUILT_IN
)
