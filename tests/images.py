"""Pictures for tests of rotation."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from sre.symmetry import disc_mask


def band_limited(side: int, *, waves: int = 3) -> Tensor:
    """Draw noise without detail: random waves, each of at most so many periods across the image."""
    t = torch.linspace(0, 2 * math.pi, side + 1, dtype=torch.float64)[:-1]
    basis = torch.stack([f(n * t) for n in range(waves + 1) for f in (torch.cos, torch.sin)])
    amplitudes = torch.randn(1, 2, len(basis), len(basis), dtype=torch.float64)
    return torch.einsum("bcij,ih,jw->bchw", amplitudes, basis, basis)


def inner_disc(side: int, *, margin: int) -> Tensor:
    """Mark the inscribed disc without a rim, where what lies outside the image has its say."""
    return F.pad(disc_mask(side - 2 * margin, side - 2 * margin), (margin,) * 4)
