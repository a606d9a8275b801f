"""Balanced bands: a way to train radial kernels whose bands are of unequal size.

One step of an optimiser such as Adam changes every weight by as much, and a band's weight changes
all its pixels at once: with k = 9 one pixel in the middle, 32 at the rim. So the rim learns at many
times the pace of the middle, and begins with most of the kernel's energy: a blur. Balanced, the
weights begin divided by the number of their pixels, and are trained as multiples of its inverse
root. The layer computes what it did, and after training nothing is left of this.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import parametrize

from sre.layers import RadialConv


class BandScale(nn.Module):
    """Hold a layer's weights divided by a scale a band.

    Shape: (out, in/groups, bands) -> the same

    >>> scale = BandScale(torch.tensor([1.0, 0.5]))
    >>> scale(scale.right_inverse(torch.ones(1, 1, 2)))
    tensor([[[1., 1.]]])
    """

    def __init__(self, scale: Float[Tensor, " bands"]):
        super().__init__()
        self.scale: Tensor
        self.register_buffer("scale", scale, persistent=False)

    def forward(self, held: Float[Tensor, "*_ bands"]) -> Float[Tensor, "*_ bands"]:
        return held * self.scale

    def right_inverse(self, weight: Float[Tensor, "*_ bands"]) -> Float[Tensor, "*_ bands"]:
        return weight / self.scale


def balance_bands(model: nn.Module) -> None:
    """Balance all radial layers of a network that is about to be trained, in place.

    >>> from sre.layers import SREConv2d
    >>> layer = SREConv2d(1, 1, kernel_size=3)
    >>> before = layer.weight.detach().clone()
    >>> balance_bands(layer)
    >>> layer.weight / before  # 1 and 8 pixels
    tensor([[[1.0000, 0.1250]]], grad_fn=<DivBackward0>)
    """
    for layer in list(model.modules()):
        if isinstance(layer, RadialConv):
            pixels = layer.masks.flatten(1).sum(1).to(layer.weight)
            with torch.no_grad():
                layer.weight.div_(pixels)
            parametrize.register_parametrization(layer, "weight", BandScale(pixels.rsqrt()))


def settle_bands(model: nn.Module) -> None:
    """Give balanced layers their weights as they now are, and make them as they were before.

    >>> from sre.layers import SREConv2d
    >>> layer = SREConv2d(1, 1, kernel_size=3)
    >>> balance_bands(layer)
    >>> settle_bands(layer)
    >>> sorted(layer.state_dict()), type(layer).__name__
    (['bias', 'weight'], 'SREConv2d')
    """
    for layer in list(model.modules()):
        if isinstance(layer, RadialConv) and parametrize.is_parametrized(layer, "weight"):
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
