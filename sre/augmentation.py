"""What training does to its images: a whole batch at once, where the images are, seeded."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sre.protocols import MEAN, STD, soft_disc
from sre.settings import TrainConfig


def augment(
    pixels: Float[Tensor, "B C S S"], config: TrainConfig, generator: torch.Generator
) -> Float[Tensor, "B C S S"]:
    """Scale, shift, light, perhaps turn and mask a whole batch, each image its own way; normalise.

    All random numbers are drawn in any case, so that the models of a comparison get the same ones.
    """
    batch, _, side, _ = pixels.shape
    draw = torch.rand(batch, 7, generator=generator).to(pixels.device)
    signed = 2 * draw - 1
    angle = 2 * math.pi * draw[:, 0] * float(config.rotate)
    zoom = 1 + config.scale * signed[:, 1]
    cos, sin = torch.cos(angle) / zoom, torch.sin(angle) / zoom
    shift = 2 * config.shift * signed[:, 2:4]  # the grid spans 2 across the image
    theta = torch.stack(
        [torch.stack([cos, -sin, shift[:, 0]], 1), torch.stack([sin, cos, shift[:, 1]], 1)], 1
    )
    grid = F.affine_grid(theta, list(pixels.shape), align_corners=False)
    moved = F.grid_sample(pixels, grid, mode="bilinear", padding_mode="border", align_corners=False)
    contrast = 1 + config.jitter * signed[:, 4, None, None, None]
    brightness = config.jitter * signed[:, 5, None, None, None]
    lit = ((moved - 0.5) * contrast + 0.5 + brightness).clamp(0, 1)
    # What came from outside becomes 0 after normalising, as when a protocol turns an image.
    inside = F.grid_sample(torch.ones_like(pixels[:, :1]), grid, align_corners=False)
    masked = (draw[:, 6] < config.mask_rate)[:, None, None, None]
    inside = inside * torch.where(masked, soft_disc(side).to(pixels), torch.ones_like(inside))
    return (lit - MEAN) / STD * inside
