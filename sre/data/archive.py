"""Reading one split of an .npz file from elsewhere, which may be damaged or hostile."""

import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedIOBase
from math import prod
from pathlib import Path
from typing import IO

import numpy as np

from sre.data.split import Split
from sre.data.table import DatasetEntry
from sre.errors import DataError

_CHUNK = 1 << 20  # bytes
_LONGEST_HEADER = 4096  # bytes; numpy writes 118
# numpy's own reader evaluates the header as Python; this takes only what numpy writes.
_HEADER = re.compile(
    rb"\{'descr': '([<>|][a-zA-Z]\d*)', 'fortran_order': (True|False), "
    rb"'shape': \(((?:\d{1,9}, ?)*(?:\d{1,9},?)?)\), ?\}\s*"
)


def read_split(path: Path, entry: DatasetEntry, size: int, split: str) -> Split:
    """Read and check one split; the arrays of the others are not touched.

    What an array claims to be is checked before memory is set aside for it, so that a small file
    cannot ask for much; nothing in it is evaluated or unpickled. A split may hold fewer images
    than the official one, never more.

    Raises: DataError: what is wrong with the file, and the cure
    """
    with _opened(path) as archive:
        images, labels = (_Member.find(path, archive, f"{split}_{k}") for k in ("images", "labels"))
        images.check_images(entry, size, split)
        labels.check_labels(entry, images.shape[0])
        pixels, classes = images.read(archive), labels.read(archive)
    top = 1 if entry.is_multi_label else len(entry.classes) - 1
    low, high = int(classes.min()), int(classes.max())
    if low < 0 or high > top:
        raise labels.fault(f"has labels from {low} to {high}, {entry.title}'s go from 0 to {top}")
    if entry.is_multi_label:
        return Split(pixels, classes.astype(np.uint8))
    return Split(pixels, classes.reshape(-1).astype(np.int64))


@dataclass(frozen=True, slots=True)
class _Member:
    """One array of the archive, as its header describes it; nothing of it is read yet."""

    path: Path
    info: zipfile.ZipInfo
    shape: tuple[int, ...]
    dtype: np.dtype
    is_fortran: bool
    start: int  # of the data, in bytes

    @classmethod
    def find(cls, path: Path, archive: zipfile.ZipFile, key: str) -> "_Member":
        if f"{key}.npy" not in archive.namelist():
            names = [name.removesuffix(".npy")[:40] for name in archive.namelist()[:8]]
            found = ", ".join(map(repr, names)) or "nothing"
            raise _fault(path, f"has no {key!r}, it holds {found}")
        info = archive.getinfo(f"{key}.npy")
        with archive.open(info) as file:
            header, start = _read_header(file)
        if header is None:
            raise _fault(path, f"holds no plain array in {key!r}")
        descr, is_fortran, sides = header.groups()
        if descr[1:2] == b"O":
            raise _fault(path, f"holds pickled objects in {key!r}, which are never opened")
        if not re.fullmatch(rb"[|<>][uifb][1248]", descr):
            raise _fault(path, f"holds {descr.decode()!r} in {key!r}, which are no numbers")
        shape = tuple(int(side) for side in re.findall(rb"\d+", sides))
        return cls(path, info, shape, np.dtype(descr.decode()), is_fortran == b"True", start)

    def fault(self, cause: str) -> DataError:
        return _fault(self.path, f"{cause} in {self.info.filename.removesuffix('.npy')!r}")

    def check_images(self, entry: DatasetEntry, size: int, split: str) -> None:
        if self.dtype != np.uint8:
            raise self.fault(f"holds {self.dtype}, not uint8,")
        wanted, most = entry.image_shape(size), entry.splits[split]
        if self.shape[1:] != wanted or not 1 <= self.shape[0] <= most:
            sides = ", ".join(map(str, wanted))
            raise self.fault(
                f"holds an array of shape {self.shape}, not ({most}, {sides}) as {entry.title},"
            )

    def check_labels(self, entry: DatasetEntry, count: int) -> None:
        if self.dtype.kind not in "iu":
            raise self.fault(f"holds {self.dtype}, not integers,")
        width = len(entry.classes) if entry.is_multi_label else 1
        if self.shape != (count, width) and (width != 1 or self.shape != (count,)):
            raise self.fault(
                f"holds an array of shape {self.shape}, not ({count}, {width}) as its images need,"
            )

    def read(self, archive: zipfile.ZipFile) -> np.ndarray:
        data = np.empty(prod(self.shape) * self.dtype.itemsize, np.uint8)
        if self.info.file_size != self.start + len(data):
            raise self.fault("does not hold as many bytes as it says")
        with archive.open(self.info) as file:
            file.read(self.start)
            at = 0
            # One byte too many is asked for, as only the end makes zipfile check the sum.
            while piece := file.read(min(_CHUNK, len(data) - at + 1)):
                data[at : at + len(piece)] = np.frombuffer(piece, np.uint8)
                at += len(piece)
        if at != len(data):
            raise self.fault("ends early")
        return data.view(self.dtype).reshape(self.shape, order="F" if self.is_fortran else "C")


def _read_header(file: BufferedIOBase | IO[bytes]) -> tuple[re.Match[bytes] | None, int]:
    magic = file.read(8)
    width = {b"\x93NUMPY\x01\x00": 2, b"\x93NUMPY\x02\x00": 4, b"\x93NUMPY\x03\x00": 4}.get(magic)
    if width is None:
        return None, 0
    length = int.from_bytes(file.read(width), "little")
    if length > _LONGEST_HEADER:
        return None, 0
    return _HEADER.fullmatch(file.read(length)), 8 + width + length


def _fault(path: Path, cause: str) -> DataError:
    return DataError(f"{path} {cause}; delete it and download it again")


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open the archive; whatever its bytes make zipfile raise becomes a DataError."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except FileNotFoundError as error:
        cure = "download it, or set the data folder to one that has it"
        raise DataError(f"{path} is not there; {cure}") from error
    except OSError as error:
        cure = "make it a file that you may read, or delete it and download it again"
        raise DataError(f"{path} cannot be read ({error.strerror or error}); {cure}") from error
    # zipfile has no one exception for bad input: encrypted members are RuntimeError, unknown
    # compression NotImplementedError, cut data EOFError, odd names and offsets ValueError.
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError) as error:
        raise _fault(path, f"is truncated, damaged or no .npz archive ({error})") from error
