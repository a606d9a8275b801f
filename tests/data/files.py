"""Small MedMNIST-like files, sound and hostile."""

import io
import zipfile
from pathlib import Path

import numpy as np


def breast(train: int = 5, val: int = 3, test: int = 4) -> dict[str, np.ndarray]:
    """Make the arrays of a small BreastMNIST."""
    rng = np.random.default_rng(0)
    arrays = {}
    for name, count in {"train": train, "val": val, "test": test}.items():
        arrays[f"{name}_images"] = rng.integers(0, 256, (count, 28, 28), np.uint8)
        arrays[f"{name}_labels"] = (np.arange(count) % 2).astype(np.uint8)[:, None]
    return arrays


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def header(text: str, body: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    packed = text.encode()
    length = len(packed).to_bytes(2 if version[0] == 1 else 4, "little")
    return b"\x93NUMPY" + version + length + packed + body


def write_zip(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
