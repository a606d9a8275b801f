"""scikit-learn's handwritten digits, enlarged to 28 px: the set where orientation matters."""

import gzip
import importlib.util
from functools import lru_cache
from pathlib import Path

import numpy as np

from sre.data.split import Split
from sre.data.table import find_dataset
from sre.errors import DataError

_SIDE, _PITCH = 28, 2.4  # px; px between the centres of two of the 8x8 original pixels


@lru_cache(maxsize=1)
def _read_all() -> tuple[np.ndarray, np.ndarray]:
    """Read the file that scikit-learn ships, without scikit-learn, whose import takes seconds.

    Shape: (1797, 8, 8) grey values 0 to 16, (1797,) digits
    """
    spec = importlib.util.find_spec("sklearn")
    if spec is None or not spec.submodule_search_locations:
        raise DataError("the digits come with scikit-learn; run pip install 'sre-lab[train]'")
    path = Path(spec.submodule_search_locations[0]) / "datasets" / "data" / "digits.csv.gz"
    lines = gzip.decompress(path.read_bytes()).decode("ascii").split()
    rows = np.array([line.split(",") for line in lines], dtype=np.float64)
    return rows[:, :-1].reshape(-1, 8, 8), rows[:, -1].astype(np.int64)


def _enlarge(small: np.ndarray) -> np.ndarray:
    """Enlarge 8x8 images smoothly (Catmull-Rom), with a margin that holds a turning digit.

    The corner pixels' centres lie 11.9 px from the middle, inside the disc inscribed in 28x28.
    """
    place = (np.arange(_SIDE) - (_SIDE - 1) / 2) / _PITCH + 3.5  # in original pixels
    t = np.abs(place[:, None] - np.arange(8)[None, :])
    inner, outer = 1.5 * t**3 - 2.5 * t**2 + 1, -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2
    weight = np.where(t < 1, inner, np.where(t < 2, outer, 0.0))
    large = weight @ small @ weight.T
    return np.clip(np.round(large * (255 / 16)), 0, 255).astype(np.uint8)


@lru_cache(maxsize=3)
def make_digits(split: str) -> Split:
    """Give one split of the digits: fixed, disjoint from the others, every digit in its share."""
    images, labels = _read_all()
    sizes = find_dataset("digits").splits
    rng = np.random.default_rng(20250101)
    order = rng.permutation(len(labels))
    # A sample's place among those of its own digit, 0 to 1: cutting the samples sorted by it at
    # any point takes the same share of every digit.
    rank = np.empty(len(labels))
    for digit in range(10):
        own = order[labels[order] == digit]
        rank[own] = (np.arange(len(own)) + 0.5) / len(own)
    by_rank = order[np.argsort(rank[order], kind="stable")]
    start = 0
    for name, size in sizes.items():
        if name == split:
            chosen = rng.permutation(by_rank[start : start + size])
            return Split(_enlarge(images[chosen]), labels[chosen])
        start += size
    raise ValueError(f"split must be one of {', '.join(sizes)}, got {split!r}")
