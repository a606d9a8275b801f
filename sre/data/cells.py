"""Drawn blood cells on a smear: a built-in stand-in that needs no download.

Eight classes told apart by shape, nucleus and granules. Stain, light, size and neighbours are
drawn from the same ranges for every class, each cell is turned by an angle uniform over the
circle and mirrored half the time, and what surrounds it is placed without a preferred direction:
orientation says nothing about the class.

Every machine draws the same bytes: pixels are computed by +, -, *, / and square root alone,
which IEEE 754 defines to the last bit; the few sines are taken in double precision and rounded.
"""

from functools import lru_cache, reduce

import numpy as np

from sre.data.split import Split
from sre.data.table import find_dataset

_SIDE, _FINE = 28, 3  # px; drawn three times as fine, then averaged down
_CHUNK = 32  # images drawn at once: few enough to stay in the processor's cache
_NOWHERE = -99.0  # radius, in px, of a lobe that is not there

# How much of red, green and blue each layer takes away where it is dense.
_BACKGROUND = np.array([0.955, 0.89, 0.875], np.float32)
_RED_CELL = np.array([0.10, 0.27, 0.24], np.float32)
_CYTOPLASM_BLUE = np.array([0.30, 0.26, 0.07], np.float32)
_CYTOPLASM_PINK = np.array([0.10, 0.25, 0.12], np.float32)
_NUCLEUS_BLUE = np.array([0.66, 0.74, 0.36], np.float32)
_NUCLEUS_RED = np.array([0.50, 0.76, 0.40], np.float32)
_PINK_GRANULE = np.array([0.06, 0.44, 0.36], np.float32)
_DARK_GRANULE = np.array([0.66, 0.80, 0.42], np.float32)

_Array = np.ndarray


@lru_cache(maxsize=3)
def make_cells(split: str) -> Split:
    """Draw one split; the same images every time, every class equally often."""
    sizes = find_dataset("cells").splits
    if split not in sizes:
        raise ValueError(f"split must be one of {', '.join(sizes)}, got {split!r}")
    rng = np.random.default_rng([20250102, list(sizes).index(split)])
    kinds = len(find_dataset("cells").classes)
    labels = np.arange(sizes[split]) % kinds
    labels = labels[np.argsort(rng.random(len(labels)), kind="stable")]
    images = np.empty((len(labels), _SIDE, _SIDE, 3), np.uint8)
    for kind in range(kinds):
        own = np.flatnonzero(labels == kind)
        for start in range(0, len(own), _CHUNK):
            rows = own[start : start + _CHUNK]
            images[rows] = _draw(rng, kind, len(rows))
    return Split(images, labels.astype(np.int64))


class _Dice:
    """Uniform numbers for n images, shaped to spread over their pixels."""

    def __init__(self, rng: np.random.Generator, n: int):
        self.rng, self.n = rng, n

    def between(self, low: float, high: float, *shape: int) -> _Array:
        """Shape: (n, *shape)"""
        return (low + (high - low) * self.rng.random((self.n, *shape))).astype(np.float32)

    def chance(self, probability: float, *shape: int) -> _Array:
        return self.rng.random((self.n, *shape)) < probability

    def direction(self, *shape: int) -> tuple[_Array, _Array]:
        return _cos_sin(2 * np.pi * self.rng.random((self.n, *shape)))


def _cos_sin(angle_rad: _Array) -> tuple[_Array, _Array]:
    double = angle_rad.astype(np.float64)
    return np.cos(double).astype(np.float32), np.sin(double).astype(np.float32)


def _draw(rng: np.random.Generator, kind: int, n: int) -> _Array:
    dice = _Dice(rng, n)
    x, y = _fine_grid()
    radius = dice.between(7.6, 10.2)
    away = dice.between(0, 1.3)
    cos, sin = dice.direction()
    red, stray = _red_cells(dice, radius, x, y)
    # The cell's own frame: shifted, turned, mirrored.
    dx, dy = x - _wide(away * cos), y - _wide(away * sin)
    cos, sin = dice.direction()
    mirror = np.where(dice.chance(0.5), 1, -1).astype(np.float32)
    u = _wide(cos) * dx + _wide(sin) * dy
    v = _wide(mirror) * (_wide(cos) * dy - _wide(sin) * dx)

    lobes = _lobes(dice, kind, radius)
    inside = _union(lobes, u, v, dice.between(0.7, 1.7))
    if kind == 7:
        body = _ramp(-inside, 1.2)
        nucleus = _ramp(-inside - 0.5, 1.6) * _wide(dice.between(0.35, 0.6))
    else:
        body = _body(dice, radius, u, v)
        nucleus = _ramp(-inside, 1.0) * body
        nucleus *= _wide(dice.between(0.9, 1.0) if kind == 1 else dice.between(0.5, 0.92))
    layers = {"red": red * (1 - body), "body": body, "nucleus": np.maximum(nucleus, stray)}
    if kind == 4:
        grains = _granules(dice, 34, radius, (0.6, 0.95), u, v)
        layers["pink"] = grains * body * (1 - 0.85 * nucleus)
    if kind == 6:
        grains = _granules(dice, 24, radius, (0.65, 1.2), u, v)
        layers["dark"] = grains * body
        layers["nucleus"] = layers["nucleus"] * 0.75
    averaged = {name: _average(layer) for name, layer in layers.items()}
    for name, depth in (("red", 0.1), ("body", 0.12), ("nucleus", 0.25)):
        averaged[name] *= _mottle(dice, depth)
    return _stain(dice, averaged)


def _fine_grid() -> tuple[_Array, _Array]:
    """Give pixel centres in px from the middle of the image."""
    side = _SIDE * _FINE
    place = ((np.arange(side) - (side - 1) / 2) / _FINE).astype(np.float32)
    return place[None, None, :], place[None, :, None]


def _wide(per_image: _Array) -> _Array:
    return per_image[:, None, None]


def _ramp(depth: _Array, width: float | _Array) -> _Array:
    """Turn depth below an outline into cover, 0 to 1, over a smooth edge."""
    t = np.clip(depth / width + 0.5, 0, 1)
    return t * t * (3 - 2 * t)


def _body(dice: _Dice, radius: _Array, u: _Array, v: _Array) -> _Array:
    """Cover a round cell whose outline waves two and three times a turn."""
    squared = u * u + v * v + 1e-4
    r = np.sqrt(squared)
    c2, s2 = (u * u - v * v) / squared, 2 * u * v / squared
    c3, s3 = (c2 * u - s2 * v) / r, (s2 * u + c2 * v) / r
    w2, w3 = dice.between(0, 0.07), dice.between(0, 0.05)
    (p2, q2), (p3, q3) = dice.direction(), dice.direction()
    wave = _wide(w2 * p2) * c2 + _wide(w2 * q2) * s2 + _wide(w3 * p3) * c3 + _wide(w3 * q3) * s3
    return _ramp(_wide(radius) * (1 + wave) - r, 1.0)


def _lobes(dice: _Dice, kind: int, radius: _Array) -> tuple[_Array, _Array, _Array]:
    """Place up to five discs whose union is the nucleus, or the platelets.

    Shape: x, y, radius, each (n, 5), in px in the cell's frame
    """
    n, slot = dice.n, np.arange(5, dtype=np.float32)[None]
    size = radius[:, None]
    x, y = np.zeros((n, 5), np.float32), np.zeros((n, 5), np.float32)
    r = np.full((n, 5), _NOWHERE, np.float32)
    if kind in (0, 1, 6):  # round: two discs close together make it slightly long
        low, high = {0: (0.62, 0.86), 1: (0.36, 0.57), 6: (0.5, 0.76)}[kind]
        r[:, :2] = size * dice.between(low, high, 1)
        x[:, 1] = radius * dice.between(0.0, 0.14)
        free = np.maximum(radius * 0.95 - r[:, 0], 0)
        cos, sin = dice.direction()
        shift = free * dice.between(0, 0.8)
        x, y = x + (shift * cos)[:, None], y + (shift * sin)[:, None]
    elif kind == 2:  # a thick arc; the mouth of the kidney looks along +x
        half = dice.between(0.75, 1.8, 1)  # rad
        angle_rad = np.pi + half * (slot - 2) / 2
        cos, sin = _cos_sin(angle_rad)
        arc = size * dice.between(0.36, 0.46, 1)
        x, y = arc * cos + 0.1 * size, arc * sin
        r = size * dice.between(0.32, 0.39, 1) + 0 * slot
    elif kind in (3, 4):  # two lobes on a bent bridge
        apart, bend = dice.between(0.36, 0.48), dice.between(-0.15, 0.25)
        x[:, 0], x[:, 1] = -apart * radius, apart * radius
        y[:, 2] = bend * radius
        x[:, 2] = 0
        r[:, :2] = size * dice.between(0.30, 0.44, 2)
        r[:, 2] = radius * dice.between(0.06, 0.18)
    elif kind == 5:  # three to five lobes along a bent chain
        count = np.floor(3 + 3 * dice.rng.random(n))[:, None]
        half = dice.between(1.5, 2.3, 1) * (count - 1) / 4 + 0.25
        angle_rad = half * (2 * slot / np.maximum(count - 1, 1) - 1)
        cos, sin = _cos_sin(angle_rad)
        arc = size * (0.50 + dice.between(-0.12, 0.10, 5))
        x, y = arc * cos - 0.12 * size, arc * sin
        r = size * dice.between(0.22, 0.33, 5) * (1 + 0.13 * (4 - count))
        r = np.where(slot < count, r, _NOWHERE)
    else:  # platelets, of unlike sizes, some touching
        count = np.floor(2 + 4 * dice.rng.random(n))[:, None]
        cos, sin = dice.direction(5)
        arc = dice.between(0.5, 5.2, 5)
        x, y = arc * cos, arc * sin
        r = np.where(slot < count, dice.between(1.1, 2.5, 5), _NOWHERE)
    return x.astype(np.float32), y.astype(np.float32), r.astype(np.float32)


def _union(lobes: tuple[_Array, _Array, _Array], u: _Array, v: _Array, soft: _Array) -> _Array:
    """Give the distance to the union of the lobes, below 0 inside, with rounded joints."""
    k = _wide(soft)
    distance: _Array | None = None
    for x, y, r in zip(*(part.T for part in lobes), strict=True):
        if (r == _NOWHERE).all():
            continue
        dx, dy = u - _wide(x), v - _wide(y)
        one = np.sqrt(dx * dx + dy * dy) - _wide(r)
        if distance is None:
            distance = one
        else:
            near = np.maximum(k - np.abs(distance - one), 0)
            distance = np.minimum(distance, one) - near * near / (4 * k)
    assert distance is not None  # no cell is without a lobe
    return distance


def _red_cells(dice: _Dice, radius: _Array, x: _Array, y: _Array) -> tuple[_Array, _Array]:
    """Lay pale red cells around the middle, and now and then a stray platelet."""
    slots = 7
    red = np.zeros((dice.n, *np.broadcast(x[0], y[0]).shape), np.float32)
    cos, sin = dice.direction()
    step_cos, step_sin = _cos_sin(np.array([2 * np.pi / slots]))
    for _ in range(slots):
        cos, sin = cos * step_cos - sin * step_sin, cos * step_sin + sin * step_cos
        size = dice.between(4.2, 5.4)
        far = radius + size * dice.between(0.7, 1.6)
        aside = dice.between(-2.2, 2.2)
        px, py = far * cos - aside * sin, far * sin + aside * cos
        dx, dy = (x - _wide(px)) / _wide(size), (y - _wide(py)) / _wide(size)
        bulge = dx * dx + dy * dy
        steep = _wide(dice.between(2.0, 3.2))
        cover = np.clip(steep - steep * bulge, 0, 1)
        # Thin in the middle: the pallor of a red cell.
        bulge *= _wide(dice.between(0.15, 0.45))
        bulge += _wide(dice.between(0.45, 0.7))
        cover *= bulge
        cover *= _wide(dice.chance(0.82).astype(np.float32))
        red += cover * (1 - 0.6 * red)
    cos, sin = dice.direction()
    far, size = radius + dice.between(1.5, 4.0), dice.between(0.9, 1.6)
    dx, dy = x - _wide(far * cos), y - _wide(far * sin)
    stray = np.clip((1 - (dx * dx + dy * dy) / _wide(size * size)) * 1.5, 0, 1)
    strength = dice.between(0.3, 0.5) * dice.chance(0.3)
    return red, stray * _wide(strength.astype(np.float32))


def _granules(
    dice: _Dice, most: int, radius: _Array, sizes: tuple[float, float], u: _Array, v: _Array
) -> _Array:
    cover = np.zeros_like(u)
    there = dice.between(0.5, 1.0)
    for i in range(most):
        cos, sin = dice.direction()
        far, size = radius * 0.92 * np.sqrt(dice.between(0, 1)), dice.between(*sizes)
        size = np.where(i < there * most, size, 1e-3).astype(np.float32)
        dx, dy = u - _wide(far * cos), v - _wide(far * sin)
        np.maximum(cover, 1.8 - 1.8 * (dx * dx + dy * dy) / _wide(size * size), out=cover)
    return np.minimum(cover, 1) * _wide(dice.between(0.55, 1.0))


def _mottle(dice: _Dice, depth: float) -> _Array:
    """Give uneven dye: blotches about 2 px wide around 1, scaled by ``depth``."""
    half = _SIDE // 2 + 1
    blotch = dice.between(-1, 1, half, half).repeat(2, axis=1).repeat(2, axis=2)
    # Averaging shifted copies turns the squares into smooth hills.
    for axis in (1, 2):
        blotch = (blotch + np.roll(blotch, 1, axis)) / 2
    return 1 + np.float32(depth) * blotch[:, 1:-1, 1:-1, None]


def _average(fine: _Array) -> _Array:
    """Average blocks of fine pixels, by adding in a fixed order.

    Shape: (n, 84, 84) -> (n, 28, 28, 1)
    """
    rows = reduce(np.add, (fine[:, i::_FINE] for i in range(_FINE)))
    blocks = reduce(np.add, (rows[:, :, i::_FINE] for i in range(_FINE)))
    return (blocks / _FINE**2)[..., None]


def _stain(dice: _Dice, layers: dict[str, _Array]) -> _Array:
    """Colour the layers, light, blur and grain the picture, as microscope and camera do."""

    def mix(one: _Array, other: _Array) -> _Array:
        share = dice.between(0, 1, 1, 1, 1)
        tint = one + share * (other - one)
        return tint * dice.between(0.82, 1.12, 1, 1, 1) * dice.between(0.93, 1.07, 1, 1, 3)

    image = _BACKGROUND * dice.between(0.97, 1.03, 1, 1, 3)
    image = image * (1 - layers["red"] * _RED_CELL * dice.between(0.7, 1.25, 1, 1, 1))
    image = image * (1 - layers["body"] * mix(_CYTOPLASM_BLUE, _CYTOPLASM_PINK))
    if "pink" in layers:
        image = image * (1 - layers["pink"] * _PINK_GRANULE)
    image = image * (1 - layers["nucleus"] * mix(_NUCLEUS_BLUE, _NUCLEUS_RED))
    if "dark" in layers:
        image = image * (1 - layers["dark"] * _DARK_GRANULE)

    place = ((np.arange(_SIDE) - (_SIDE - 1) / 2) / _SIDE).astype(np.float32)
    cos, sin = dice.direction(1, 1, 1)
    slope = dice.between(0, 0.10, 1, 1, 1)
    light = 1 + slope * (cos * place[None, None, :, None] + sin * place[None, :, None, None])
    image = image * light * dice.between(0.90, 1.04, 1, 1, 1)

    blur = dice.between(0.1, 0.85, 1, 1, 1)
    for axis in (1, 2, 1, 2):
        wide = np.concatenate(
            [image.take([0], axis), image, image.take([_SIDE - 1], axis)], axis=axis
        )
        first, last = np.arange(_SIDE), np.arange(2, _SIDE + 2)
        image = image + blur / 4 * (wide.take(first, axis) + wide.take(last, axis) - 2 * image)
    # Two uniform numbers make a triangular, near enough normal, grain.
    grain = dice.between(-1, 1, _SIDE, _SIDE, 3) + dice.between(-1, 1, _SIDE, _SIDE, 3)
    image = image + grain * dice.between(0.004, 0.025, 1, 1, 1)
    return np.floor(np.clip(image, 0, 1) * 255 + np.float32(0.5)).astype(np.uint8)
