"""Averaging over rotations at test time: any classifier, made nearly invariant at n times its cost.

The usual answer to turned images that needs no other network, and so a contender of its own in
every comparison.
"""

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sre.symmetry import Interpolation, rotate

ROTATIONS = (2, 72)  # least and most


class RotationAverage(nn.Module):
    """Average a classifier's probabilities over turns of its image by multiples of 360 degrees / n.

    Gives logarithms of the means, so that a softmax gives the means back; with ``is_multi_label``
    the logits of the means of each label's sigmoid, so that a sigmoid does. If 4 divides n,
    quarter turns of the image change nothing, to rounding, as they only permute what is averaged.

    Shape: (B, C, S, S), normalised as the model takes them -> (B, K)
    Raises: ValueError: rotations is out of range

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    >>> average, x = RotationAverage(model), torch.randn(2, 1, 8, 8)
    >>> average(x).softmax(1).allclose(average(x.rot90(1, (-2, -1))).softmax(1), atol=1e-5)
    True
    """

    def __init__(
        self,
        model: nn.Module,
        rotations: int = 8,
        *,
        is_multi_label: bool = False,
        interpolation: Interpolation = "bilinear",
    ):
        super().__init__()
        least, most = ROTATIONS
        if not least <= rotations <= most:
            raise ValueError(f"rotations must be from {least} to {most}, got {rotations}; try 8")
        self.model, self.rotations = model, rotations
        self.is_multi_label: bool = is_multi_label
        self.interpolation: Interpolation = interpolation

    def forward(self, x: Float[Tensor, "B C S S"]) -> Float[Tensor, "B K"]:
        logits = torch.stack([self.model(turned) for turned in self._turns(x)]).float()
        if self.is_multi_label:
            return _log_mean(F.logsigmoid(logits)) - _log_mean(F.logsigmoid(-logits))
        return _log_mean(logits.log_softmax(-1))

    def _turns(self, x: Tensor) -> Iterator[Tensor]:
        # Quarter turns only move pixels: a fourth of the interpolations will do where 4 divides n.
        quarters = 4 if self.rotations % 4 == 0 else 1
        for step in range(self.rotations // quarters):
            turned = rotate(
                x, angle_deg=360 * step / self.rotations, interpolation=self.interpolation
            )
            for quarter in range(quarters):
                yield turned.rot90(quarter, (-2, -1))


def _log_mean(logarithms: Float[Tensor, "n B K"]) -> Float[Tensor, "B K"]:
    return logarithms.logsumexp(0) - math.log(len(logarithms))
