"""How an image is brought before a network, turned: two named protocols, ready to be compared.

``paper`` is the authors': resized to 32 px, turned by nearest neighbour after normalising, so that
the corners fill with mid-grey. ``disc`` turns bilinearly and masks everything outside the inscribed
disc, so that no corner comes or goes with the angle.

What is masked becomes 0 after normalising, mid-grey, because that is what the convolutions pad
with: an image masked to black would change at the four places where the disc touches the frame,
and a first radial layer, off the quarter turns, would err by 0.26 instead of 0.04. An edge that
fades over one pixel brings that to 0.025, as a hard one is jagged (bench/results/mask.json).
"""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sre.errors import UnknownNameError
from sre.symmetry import Interpolation, rotate

MEAN, STD = 0.5, 0.5


@dataclass(frozen=True, slots=True)
class Protocol:
    """A way of presenting a turned image; ``side_px`` None keeps the side of the training."""

    name: str
    title: str
    description: str
    side_px: int | None
    interpolation: Interpolation
    is_masked: bool

    def side_of(self, training_px: int) -> int:
        """Give the side of the images that a network sees, for that of its training."""
        return self.side_px or training_px


_ENTRIES = (
    Protocol(
        "disc",
        "Disc",
        "Turned bilinearly; everything outside the inscribed disc is masked with mid-grey, "
        "which is what the networks' convolutions pad with.",
        None,
        "bilinear",
        True,
    ),
    Protocol(
        "paper",
        "Paper",
        "As the authors do: resized to 32 px, turned by nearest neighbour after normalising, "
        "corners filled with mid-grey.",
        32,
        "nearest",
        False,
    ),
)
PROTOCOLS: Mapping[str, Protocol] = MappingProxyType({p.name: p for p in _ENTRIES})


def find_protocol(name: str) -> Protocol:
    """Look a protocol up by its name.

    Raises: UnknownNameError: there is none of that name
    """
    if name in PROTOCOLS:
        return PROTOCOLS[name]
    close = difflib.get_close_matches(name, PROTOCOLS, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"choose from {', '.join(PROTOCOLS)}"
    raise UnknownNameError(f"unknown protocol {name!r}; {hint}")


def as_pixels(images: np.ndarray | Tensor) -> Float[Tensor, "B C H W"]:
    """Bring uint8 images, (N, H, W) or (N, H, W, 3), to floats from 0 to 1, where they are."""
    x = torch.tensor(images) if isinstance(images, np.ndarray) else images
    x = x[:, None] if x.dim() == 3 else x.permute(0, 3, 1, 2)
    return x.float() / 255


def prepare(
    images: np.ndarray | Tensor, protocol: Protocol, *, side_px: int
) -> Float[Tensor, "B C side side"]:
    """Bring uint8 images to pixels from 0 to 1 at the side that the protocol asks for.

    Resizing is bilinear with antialiasing, which commutes with quarter turns and mirrors.
    """
    side = protocol.side_of(side_px)
    x = as_pixels(images)
    if x.shape[-2:] == (side, side):
        return x
    return F.interpolate(
        x, size=(side, side), mode="bilinear", antialias=True, align_corners=False
    ).clamp(0, 1)


def present(
    pixels: Float[Tensor, "B C S S"], protocol: Protocol, *, angle_deg: float
) -> Float[Tensor, "B C S S"]:
    """Normalise prepared images and turn them by one angle: what the network sees."""
    normalised = (pixels - MEAN) / STD
    turned = rotate(normalised, angle_deg=angle_deg, interpolation=protocol.interpolation)
    return turned * soft_disc(turned.shape[-1]).to(turned) if protocol.is_masked else turned


def soft_disc(side_px: int) -> Float[Tensor, "side side"]:
    """Weigh pixels by 1 inside the inscribed disc and 0 outside, fading over its last pixel."""
    offset = torch.arange(side_px) - (side_px - 1) / 2
    return (side_px / 2 - torch.hypot(offset[:, None], offset[None, :])).clamp(0, 1)


def present_orbit(
    pixels: Float[Tensor, "1 C S S"], protocol: Protocol, angles_deg: Sequence[float]
) -> Float[Tensor, "angles C S S"]:
    """Present one prepared image at every angle."""
    return torch.cat([present(pixels, protocol, angle_deg=angle) for angle in angles_deg])
