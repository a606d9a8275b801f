"""Rotations and mirrors of images and feature maps, and how far a map is from commuting with them.

Angles are degrees, counter-clockwise as displayed; +90 equals ``torch.rot90(x, 1, (-2, -1))``.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

Interpolation = Literal["bilinear", "nearest"]


@dataclass(frozen=True, slots=True)
class GridAction:
    """One of the eight symmetries of a square pixel grid: a mirror, then quarter turns.

    >>> GridAction(quarter_turns=1, mirror=False)(torch.tensor([[1, 2], [3, 4]])).tolist()
    [[2, 4], [1, 3]]
    """

    quarter_turns: int
    mirror: bool

    def __call__(self, x: Tensor) -> Tensor:
        """Turn (..., H, W) without interpolation; H and W swap at odd quarter turns."""
        if self.mirror:
            x = x.flip(-1)
        return torch.rot90(x, self.quarter_turns, (-2, -1))


def grid_action(*, quarter_turns: int = 0, mirror: bool = False) -> GridAction:
    """Name a grid symmetry: left-right mirror first, then counter-clockwise quarter turns.

    >>> grid_action(quarter_turns=-1) == grid_action(quarter_turns=3)
    True
    """
    return GridAction(quarter_turns % 4, mirror)


GRID_ACTIONS = tuple(
    grid_action(quarter_turns=n, mirror=m) for m in (False, True) for n in range(4)
)


@dataclass(frozen=True, slots=True)
class VolumeAction:
    """One of the 48 symmetries of a cubic voxel grid: axes are swapped, then some mirrored.

    >>> turn = VolumeAction(axes=(0, 2, 1), mirrored=(False, True, False))
    >>> x = torch.randn(2, 3, 3, 3)
    >>> torch.equal(turn(x), x.rot90(1, (-2, -1))), turn.is_rotation
    (True, True)
    """

    axes: tuple[int, int, int]  # axis i of the result is this one of the volume: 0, 1 or 2
    mirrored: tuple[bool, bool, bool]

    def __call__(self, x: Tensor) -> Tensor:
        """Turn (..., D, H, W) without interpolation; the sides move with their axes."""
        leading = tuple(range(x.dim() - 3))
        x = x.permute(*leading, *(len(leading) + axis for axis in self.axes))
        return x.flip([axis - 3 for axis, flips in enumerate(self.mirrored) if flips])

    @property
    def is_rotation(self) -> bool:
        """Tell the 24 turns from the 24 with a mirror in them."""
        swaps = sum(a > b for i, a in enumerate(self.axes) for b in self.axes[i + 1 :])
        return (swaps + sum(self.mirrored)) % 2 == 0


VOLUME_ACTIONS = tuple(
    VolumeAction((a, b, c), (flips_a, flips_b, flips_c))
    for a, b, c in itertools.permutations(range(3))
    for flips_a, flips_b, flips_c in itertools.product((False, True), repeat=3)
)


def rotation_grid(
    angles_deg: Float[Tensor, " B"], height: int, width: int
) -> Float[Tensor, "B height width 2"]:
    """Give the sampling grid, for ``F.grid_sample``, that turns each image by its angle.

    >>> rotation_grid(torch.tensor([30.0]), 28, 28).shape
    torch.Size([1, 28, 28, 2])
    """
    rad = torch.deg2rad(angles_deg)
    cos, sin = torch.cos(rad), torch.sin(rad)
    zero = torch.zeros_like(cos)
    # The grid maps output to input, hence the inverse turn; rows count downwards, hence its sign.
    # Normalised coordinates stretch with the sides, which the aspect ratio undoes.
    theta = torch.stack(
        [
            torch.stack([cos, -sin * (height / width), zero], -1),
            torch.stack([sin * (width / height), cos, zero], -1),
        ],
        -2,
    )
    return F.affine_grid(theta, [len(angles_deg), 1, height, width], align_corners=False)


def rotate(
    x: Float[Tensor, "B C H W"],
    *,
    angle_deg: float,
    interpolation: Interpolation = "bilinear",
    fill: float = 0.0,
) -> Float[Tensor, "B C H2 W2"]:
    """Turn images counter-clockwise about their centre.

    Exact at multiples of 90 degrees, where pixels only move; in between, what comes from outside
    the image is ``fill``. The size stays, except that quarter turns swap H and W.

    >>> x = torch.randn(1, 3, 28, 28)
    >>> torch.equal(rotate(x, angle_deg=90), x.rot90(1, (-2, -1)))
    True
    >>> rotate(x, angle_deg=30, interpolation="nearest").shape
    torch.Size([1, 3, 28, 28])
    """
    turns, rest = divmod(angle_deg, 90.0)
    if rest == 0:
        return torch.rot90(x, int(turns) % 4, (-2, -1))
    angles = torch.full((len(x),), float(angle_deg), dtype=x.dtype, device=x.device)
    grid = rotation_grid(angles, x.shape[-2], x.shape[-1])
    turned = F.grid_sample(x - fill, grid, mode=interpolation, align_corners=False)
    return turned + fill


def rotate_volume(
    x: Float[Tensor, "B C D H W"],
    *,
    angle_deg: float,
    axis: int,
    interpolation: Interpolation = "bilinear",
    fill: float = 0.0,
) -> Float[Tensor, "B C D2 H2 W2"]:
    """Turn volumes about one of their axes through the centre: 0, 1 or 2 for D, H or W.

    Counter-clockwise in the slices across that axis, as ``rotate`` turns images; exact at multiples
    of 90 degrees.

    >>> x = torch.randn(1, 1, 4, 5, 5)
    >>> torch.equal(rotate_volume(x, angle_deg=90, axis=0), x.rot90(1, (-2, -1)))
    True
    """
    slices = x.movedim(2 + axis, 2)  # (B, C, n, h, w): n slices of h x w each
    turned = rotate(
        slices.flatten(1, 2), angle_deg=angle_deg, interpolation=interpolation, fill=fill
    )
    return turned.unflatten(1, slices.shape[1:3]).movedim(2, 2 + axis)


def rotate_orbit(
    x: Float[Tensor, "1 C H W"],
    angles_deg: list[float],
    *,
    interpolation: Interpolation = "bilinear",
    fill: float = 0.0,
) -> Float[Tensor, "angles C H W"]:
    """Turn one square image by every angle.

    Raises: ValueError: the image is not square, so quarter turns would change its size

    >>> rotate_orbit(torch.randn(1, 3, 28, 28), [0.0, 45.0, 90.0]).shape
    torch.Size([3, 3, 28, 28])
    """
    if x.shape[-2] != x.shape[-1]:
        raise ValueError(
            f"an orbit needs a square image, got {x.shape[-2]}x{x.shape[-1]}; crop it first"
        )
    turned = [rotate(x, angle_deg=a, interpolation=interpolation, fill=fill) for a in angles_deg]
    return torch.cat(turned)


def rotate_each(
    x: Float[Tensor, "B C H H"],
    angles_deg: list[float],
    *,
    interpolation: Interpolation = "bilinear",
) -> Float[Tensor, "B C H H"]:
    """Turn each square map by its own angle, outside filled with 0; exact at quarter turns.

    >>> x = torch.randn(2, 1, 8, 8)
    >>> torch.equal(rotate_each(x, [0.0, 180.0])[1], x[1].flip(-1, -2))
    True
    """
    angles = torch.tensor(angles_deg, dtype=x.dtype, device=x.device)
    grid = rotation_grid(angles, x.shape[-2], x.shape[-1])
    turned = F.grid_sample(x, grid, mode=interpolation, align_corners=False)
    for i, angle in enumerate(angles_deg):
        turns, rest = divmod(angle, 90.0)
        if rest == 0:
            turned[i] = torch.rot90(x[i], int(turns) % 4, (-2, -1))
    return turned


def disc_mask(*sides: int) -> Bool[Tensor, "..."]:
    """Mark the pixels whose centres lie in the disc, or ball, inscribed in an image or volume.

    >>> disc_mask(4, 4).int().tolist()
    [[0, 1, 1, 0], [1, 1, 1, 1], [1, 1, 1, 1], [0, 1, 1, 0]]
    """
    centred = [torch.arange(side) - (side - 1) / 2 for side in sides]
    squares = [axis**2 for axis in torch.meshgrid(*centred, indexing="ij")]
    return torch.stack(squares).sum(0) <= (min(sides) / 2) ** 2


def equivariance_error(
    f: Callable[[Tensor], Tensor], action: Callable[[Tensor], Tensor], x: Float[Tensor, "B C *_"]
) -> float:
    """Measure ``amax(abs(f(g·x) - g·f(x))) / amax(abs(f(x)))``, 0 where f commutes with g.

    Returns: infinity where f answers the turned image with another shape

    >>> turn, pool = grid_action(quarter_turns=1), torch.nn.AvgPool2d(2)
    >>> equivariance_error(pool, turn, torch.randn(1, 1, 8, 8)) < 1e-6
    True
    >>> equivariance_error(pool, turn, torch.randn(1, 1, 7, 7)) > 0.1  # drops a row at one side
    True
    """
    before, after = f(x), f(action(x))
    expected = action(before)
    if after.shape != expected.shape:
        return math.inf
    scale = before.abs().amax().clamp_min(torch.finfo(before.dtype).tiny)
    return float(((after - expected).abs().amax() / scale).detach())


def relative_error(
    got: Float[Tensor, "B C *space"],
    wanted: Float[Tensor, "#B C *space"],
    mask: Bool[Tensor, "*space"],
    *,
    against: Float[Tensor, "#B C *space"] | None = None,
) -> Float[Tensor, " B"]:
    """Measure ``||got - wanted|| / ||against||`` inside the mask, one number an image (L2 norms).

    Against what was wanted, unless something else is given.

    >>> wanted = torch.ones(1, 1, 4, 4)
    >>> relative_error(1.1 * wanted, wanted, disc_mask(4, 4)).round(decimals=3)
    tensor([0.1000])
    """
    reference = wanted if against is None else against
    difference = ((got - wanted) * mask).flatten(1).norm(dim=1)
    return difference / (reference * mask).flatten(1).norm(dim=1).clamp_min(1e-12)
