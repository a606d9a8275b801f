"""The one door to the data: any split of any set, and what is on disk of it."""

import hashlib
from functools import lru_cache
from math import prod
from pathlib import Path
from threading import Lock
from typing import Literal

from sre.data.archive import read_split
from sre.data.cells import make_cells
from sre.data.digits import make_digits
from sre.data.split import Split
from sre.data.table import DatasetEntry, find_dataset
from sre.errors import DataError, SettingError

Status = Literal["official", "other", "missing", "built-in"]

_BUILT_IN = {"cells": make_cells, "digits": make_digits}
_CACHED_AT_MOST = 100_000_000  # bytes; the largest sets take GBs, and only training reads those
# Thirty first visitors at once must not draw the built-in cells thirty times.
_BUILDING = Lock()


def load_split(name: str, split: str, *, data_dir: Path, size: int = 28) -> Split:
    """Load one split, checked, from the data folder or built in; it may be shared, so read-only.

    Raises: UnknownNameError: no data set has that name
        SettingError: the set has no such split or size
        DataError: its file is missing or damaged, and the cure
    """
    entry = find_dataset(name)
    entry.check_size(size)
    if split not in entry.splits:
        raise SettingError(f"unknown split {split!r}; choose from {', '.join(entry.splits)}")
    if name in _BUILT_IN:
        with _BUILDING:
            return _BUILT_IN[name](split)
    path = data_dir / entry.file_name(size)
    stamp = _stamp(path)
    if stamp is None:
        raise DataError(
            f"{path} is not there; download {entry.title}, or set the data folder to one that "
            "has it"
        )
    if entry.splits[split] * prod(entry.image_shape(size)) > _CACHED_AT_MOST:
        return read_split(path, entry, size, split)
    return _read_cached(name, split, size, path, stamp)


def status(entry: DatasetEntry, *, data_dir: Path, size: int = 28) -> Status:
    """Tell whether a set's file is there, and whether its bytes are the official ones.

    Raises: DataError: the file cannot be read
    """
    if entry.source == "built-in":
        return "built-in"
    path = data_dir / entry.file_name(size)
    stamp = _stamp(path)
    if stamp is None:
        return "missing"
    return "official" if _md5(path, stamp) == entry.archive(size).md5 else "other"


def file_md5(entry: DatasetEntry, *, data_dir: Path, size: int = 28) -> str | None:
    """Give the md5 of a set's file on disk; None if it is built in or not there.

    Raises: DataError: the file cannot be read
    """
    if entry.source == "built-in":
        return None
    path = data_dir / entry.file_name(size)
    stamp = _stamp(path)
    return None if stamp is None else _md5(path, stamp)


_Stamp = tuple[int, int]  # time of last change in ns, size in bytes: a replaced file is read anew


def _stamp(path: Path) -> _Stamp | None:
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _unreadable(path, error) from error
    return found.st_mtime_ns, found.st_size


@lru_cache(maxsize=6)
def _read_cached(name: str, split: str, size: int, path: Path, stamp: _Stamp) -> Split:
    return read_split(path, find_dataset(name), size, split)


@lru_cache(maxsize=128)
def _md5(path: Path, stamp: _Stamp) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> DataError:
    return DataError(
        f"{path} cannot be read ({error.strerror}); make it a file that you may read, or delete it"
    )
