"""How an image lies before a network: mirrored, scaled and shifted, then turned."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sre.protocols import MEAN, STD, Protocol, present, soft_disc
from sre.symmetry import rotation_grid

Mirror = Literal["none", "vertical", "horizontal"]
_AXES: Mapping[str, tuple[int, ...]] = MappingProxyType(
    {"none": (), "vertical": (-2,), "horizontal": (-1,)}
)


@dataclass(frozen=True, slots=True)
class Pose:
    """First the mirror, then the shift and the scale, then the turn.

    >>> Pose(120.0).upright
    Pose(angle_deg=30.0, mirror='none', scale=1.0, shift=0.0)
    """

    angle_deg: float = 0.0  # counter-clockwise
    mirror: Mirror = "none"  # vertical: upside down; horizontal: left and right swapped
    scale: float = 1.0  # above 1 the image is magnified
    shift: float = 0.0  # to the image's own right, as a share of its side

    @property
    def upright(self) -> "Pose":
        """The same, turned back by quarter turns as far as it goes."""
        return replace(self, angle_deg=self.angle_deg % 90)

    @property
    def quarter_turns(self) -> int:
        """How many lead from ``upright`` here."""
        return int(self.angle_deg // 90) % 4

    @property
    def words(self) -> str:
        """Name the pose, for keys and tables."""
        parts = [f"{self.angle_deg:g}"]
        parts += [f"{self.mirror} mirror"] if self.mirror != "none" else []
        parts += [f"scale {self.scale:g}"] if self.scale != 1 else []
        parts += [f"shift {self.shift:g}"] if self.shift else []
        return ", ".join(parts)


def present_pose(
    pixels: Float[Tensor, "B C S S"], protocol: Protocol, pose: Pose
) -> Float[Tensor, "B C S S"]:
    """Normalise prepared images and lay them as the pose says; what comes in is mid-grey.

    The turn is that of ``pose.upright`` and then quarter turns, which only move pixels: poses that
    differ by quarter turns differ by nothing else. Interpolates once.

    >>> from sre.protocols import find_protocol
    >>> x, disc = torch.rand(2, 1, 28, 28), find_protocol("disc")
    >>> turned = [present_pose(x, disc, Pose(angle)) for angle in (30.0, 120.0)]
    >>> torch.equal(turned[1], turned[0].rot90(1, (-2, -1)))
    True
    """
    x = pixels.flip(_AXES[pose.mirror]) if pose.mirror != "none" else pixels
    if pose.scale == 1 and pose.shift == 0:
        turned = present(x, protocol, angle_deg=pose.upright.angle_deg)
    else:
        turned = _sample(x, protocol, pose)
    return turned.rot90(pose.quarter_turns, (-2, -1))


def _sample(x: Tensor, protocol: Protocol, pose: Pose) -> Tensor:
    angle = torch.full((len(x),), pose.upright.angle_deg, dtype=x.dtype, device=x.device)
    grid = rotation_grid(angle, x.shape[-2], x.shape[-1]) / pose.scale
    grid[..., 0] -= 2 * pose.shift  # a side is 2 long there
    normalised = (x - MEAN) / STD
    turned = F.grid_sample(normalised, grid, mode=protocol.interpolation, align_corners=False)
    return turned * soft_disc(turned.shape[-1]).to(turned) if protocol.is_masked else turned


@dataclass(frozen=True, slots=True)
class Condition:
    """Poses whose figures are told as one."""

    name: str
    title: str
    poses: tuple[Pose, ...]


_FEW = tuple(float(angle) for angle in range(0, 360, 30))
FLIPS = (
    Condition("flip_vertical", "upside down", (Pose(mirror="vertical"),)),
    Condition("flip_horizontal", "left and right swapped", (Pose(mirror="horizontal"),)),
)
PLACINGS = (
    Condition(
        "rotation_scale_0.8", "turned and reduced to 0.8", tuple(Pose(a, scale=0.8) for a in _FEW)
    ),
    Condition(
        "rotation_scale_1.25",
        "turned and magnified to 1.25",
        tuple(Pose(a, scale=1.25) for a in _FEW),
    ),
    Condition(
        "rotation_shift_0.1",
        "shifted by a tenth of the side and turned",
        tuple(Pose(a, shift=0.1) for a in _FEW),
    ),
)
