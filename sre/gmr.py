"""GMR convolutions: radially symmetric kernels whose bands are smoothed by learned Gaussians.

Ring m spreads its weight over the bands l with a Gaussian of learned width over the band index,
``P[m, l] = exp(-((l - m) / sigma_m)^2 / 2) / (2.5066 sigma_m)``. So a GMR layer is an SRE layer
with the weights ``w P``: a smoothing prior on the same family of kernels, not a larger one.
"""

import math
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sre.layers import RadialConv, SREConv1d, SREConv2d, SREConv3d

SIGMA_MIN = 1e-2  # in bands; the largest is two times as many as there are bands
FWHM_IN_SIGMAS = 2.355
ROOT_2_PI = 2.5066  # as rounded in the authors' code, so that the layers agree


class GaussianRingConv(RadialConv):
    """What the GMR layers of every dimension share; takes the arguments of nn.Conv2d.

    >>> layer = GMRConv2d(1, 1, kernel_size=5)
    >>> layer.spread.shape  # of each of 3 rings over 3 bands
    torch.Size([3, 3])
    """

    sre_layer: ClassVar[type[RadialConv]]

    def _add_weight(
        self, bands: int, *, device: torch.device | str | None, dtype: torch.dtype | None
    ) -> None:
        super()._add_weight(bands, device=device, dtype=dtype)
        self.log_sigma = nn.Parameter(torch.empty(bands, device=device, dtype=dtype))

    def reset_parameters(self) -> None:
        """Draw weights as nn.Conv2d does; a ring is as wide at half its height as a band."""
        super().reset_parameters()
        band_px = self.kernel_size[0] / (2 * max(1, self.bands - 1))
        nn.init.constant_(self.log_sigma, math.log(band_px / FWHM_IN_SIGMAS))

    @property
    def spread(self) -> Float[Tensor, "rings bands"]:
        """How much of each ring's weight each band gets; not normalised."""
        index = torch.arange(self.bands, dtype=self.log_sigma.dtype, device=self.log_sigma.device)
        sigma = self.log_sigma.exp().clamp(SIGMA_MIN, 2.0 * self.bands)[:, None]
        distance = (index[None, :] - index[:, None]) / sigma
        return torch.exp(-0.5 * distance**2) / (ROOT_2_PI * sigma)

    @property
    def banded(self) -> Float[Tensor, "bands in_ch out_ch"]:
        """The weight of each band, made anew from those of the rings each time."""
        rings = self.weight.permute(2, 1, 0).contiguous()  # compilers know no super().banded
        return (self.spread.t() @ rings.flatten(1)).view(rings.shape)

    def to_sre(self) -> RadialConv:
        """Give the SRE layer that computes the same, to rounding; a copy with weights of its own.

        >>> layer, x = GMRConv2d(4, 8, 9, padding="same"), torch.randn(1, 4, 20, 20)
        >>> torch.allclose(layer.to_sre()(x), layer(x), atol=1e-5)
        True
        """
        layer = self.sre_layer(
            self.in_channels, self.out_channels, self.kernel_size, self.stride, self.padding,
            self.dilation, self.groups, self.bias is not None, self.padding_mode,
            self.weight.device, self.weight.dtype, circular=self.circular, dense=self.dense,
        )  # fmt: skip
        with torch.no_grad():
            layer.weight.copy_(self.banded.permute(2, 1, 0))
            if layer.bias is not None and self.bias is not None:
                layer.bias.copy_(self.bias)
        return layer.train(self.training)


class GMRConv1d(GaussianRingConv):
    """Convolve signals with Gaussian mixture rings; symmetry and arguments as SREConv1d.

    Shape: (B, in_channels, n) -> (B, out_channels, n'), as nn.Conv1d
    Attributes: weight (out_channels, in_channels / groups, rings); log_sigma (rings), natural
        logarithm of the rings' widths in bands; kernel, the dense one
    Raises: ValueError: as SREConv1d
    Reference: Du et al., GMR-Conv, https://arxiv.org/abs/2504.02819

    >>> GMRConv1d(2, 3, kernel_size=7, padding="same")(torch.randn(1, 2, 20)).shape
    torch.Size([1, 3, 20])
    """

    dims, sre_layer = 1, SREConv1d


class GMRConv2d(GaussianRingConv):
    """Convolve with Gaussian mixture rings; symmetry, speed and arguments as SREConv2d.

    Shape: (B, in_channels, h, w) -> (B, out_channels, h', w'), as nn.Conv2d
    Attributes: weight (out_channels, in_channels / groups, rings); log_sigma (rings), natural
        logarithm of the rings' widths in bands; kernel, the dense one
    Raises: ValueError: as SREConv2d
    Reference: Du et al., GMR-Conv, https://arxiv.org/abs/2504.02819, and the authors' code as
        released after February 2026

    >>> layer, x = GMRConv2d(2, 3, kernel_size=9, padding="same"), torch.randn(1, 2, 28, 28)
    >>> torch.allclose(layer(x.rot90(1, (-2, -1))), layer(x).rot90(1, (-2, -1)), atol=1e-5)
    True
    """

    dims, sre_layer = 2, SREConv2d


class GMRConv3d(GaussianRingConv):
    """Convolve volumes with Gaussian mixture shells; symmetry, speed, arguments as SREConv3d.

    Shape: (B, in_channels, d, h, w) -> (B, out_channels, d', h', w'), as nn.Conv3d
    Attributes: weight (out_channels, in_channels / groups, rings); log_sigma (rings), natural
        logarithm of the rings' widths in bands; kernel, the dense one
    Raises: ValueError: as SREConv3d
    Reference: Du et al., GMR-Conv, https://arxiv.org/abs/2504.02819

    >>> GMRConv3d(1, 2, kernel_size=5, padding="same")(torch.randn(1, 1, 9, 9, 9)).shape
    torch.Size([1, 2, 9, 9, 9])
    """

    dims, sre_layer = 3, SREConv3d


def parameter_groups(
    model: nn.Module, *, weight_decay: float, decays_vectors: bool = True
) -> list[dict[str, object]]:
    """Split a network's parameters for an optimiser: no weight decay for the rings' widths.

    Decay would pull every log_sigma to 0, a width of one band. Without ``decays_vectors`` biases
    and norms are spared, too. Groups without parameters are left out.

    Reference: Du et al., GMR-Conv, https://arxiv.org/abs/2504.02819, and the authors' code

    >>> groups = parameter_groups(GMRConv2d(1, 2, 3), weight_decay=1e-3)
    >>> [(group["weight_decay"], len(group["params"])) for group in groups]
    [(0.001, 2), (0.0, 1)]
    >>> optimizer = torch.optim.SGD(groups, lr=0.02, momentum=0.9)
    """
    widths = {id(m.log_sigma) for m in model.modules() if isinstance(m, GaussianRingConv)}
    decayed: list[nn.Parameter] = []
    spared: list[nn.Parameter] = []
    for parameter in model.parameters():
        spares = id(parameter) in widths or (not decays_vectors and parameter.dim() <= 1)
        (spared if spares else decayed).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": spared, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
