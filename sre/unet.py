"""U-Nets that label every pixel or voxel, with kernels of any kind."""

from collections.abc import Sequence
from functools import partial
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sre.resnet import (
    NORMS,
    POINTWISE,
    Convolution,
    HalvingPool,
    channels_last,
    fold_norms,
    initialise,
)


class DoubleConv(nn.Module):
    """Two convolutions at one side, each with batch-norm and ReLU.

    Shape: (B, in_channels, *space) -> (B, channels, *space)

    >>> block = DoubleConv(nn.Conv2d, 3, 8, kernel_size=3, dims=2)
    >>> block(torch.randn(1, 3, 20, 20)).shape
    torch.Size([1, 8, 20, 20])
    """

    def __init__(
        self,
        convolution: Convolution,
        in_channels: int,
        channels: int,
        *,
        kernel_size: int,
        dims: int,
    ):
        super().__init__()
        conv = partial(convolution, kernel_size=kernel_size, padding=kernel_size // 2, bias=False)
        self.conv1, self.norm1 = conv(in_channels, channels), NORMS[dims](channels)
        self.conv2, self.norm2 = conv(channels, channels), NORMS[dims](channels)

    def forward(self, x: Float[Tensor, "B in_ch *space"]) -> Float[Tensor, "B out_ch *space"]:
        x = F.relu_(self.norm1(self.conv1(x)))
        return F.relu_(self.norm2(self.conv2(x)))


class UNet(nn.Module):
    """A U-Net whose only orientation-dependent part, if any, is the kernels.

    Levels halve the side by pooling to ``ceil(side / 2)``; the way back up interpolates linearly to
    the side of the level that it joins. Both commute with quarter turns and mirrors at every
    side, so that with equivariant kernels a turned image gets the turned logits, exactly.

    Shape: (B, in_channels, *space) -> (B, num_classes, *space), logits of every pixel
    Args: convolution: builds each k x k layer, called as nn.Conv2d; kernel_sizes: one a level,
        from the finest; dims: 2 for images, 3 for volumes
    Reference: Ronneberger et al., 2015; Du et al., https://arxiv.org/abs/2504.02819

    >>> from sre.layers import SREConv2d
    >>> settings = {"in_channels": 1, "num_classes": 2, "width": 8, "kernel_sizes": (9, 9, 5, 5)}
    >>> net, x = UNet(SREConv2d, **settings).eval(), torch.randn(1, 1, 25, 25)
    >>> torch.allclose(net(x.rot90(1, (-2, -1))), net(x).rot90(1, (-2, -1)), atol=1e-4)
    True
    """

    def __init__(
        self,
        convolution: Convolution,
        *,
        in_channels: int,
        num_classes: int,
        width: int = 64,
        kernel_sizes: Sequence[int],
        dims: int = 2,
    ):
        super().__init__()
        block = partial(DoubleConv, convolution, dims=dims)
        self.pool = HalvingPool()
        self.upsampling = "bilinear" if dims == 2 else "trilinear"
        self.levels = len(kernel_sizes)
        channels = [in_channels, *(width * 2**level for level in range(self.levels))]
        for level, (given, made) in enumerate(pairwise(channels), start=1):
            self.add_module(f"down{level}", block(given, made, kernel_size=kernel_sizes[level - 1]))
        for level in range(self.levels - 1, 0, -1):
            fine, coarse = channels[level], channels[level + 1]
            self.add_module(
                f"up{level}", block(coarse + fine, fine, kernel_size=kernel_sizes[level - 1])
            )
        self.head = POINTWISE[dims](width, num_classes, 1)
        initialise(self)

    def forward_features(
        self, x: Float[Tensor, "B C *space"]
    ) -> dict[str, Float[Tensor, "B c *_"]]:
        """Give the maps of every level, down1 the finest; then on the way back, up to up1."""
        features, x = {}, channels_last(x)
        for level in range(1, self.levels + 1):
            x = getattr(self, f"down{level}")(self.pool(x) if level > 1 else x)
            features[f"down{level}"] = x
        for level in range(self.levels - 1, 0, -1):
            fine = features[f"down{level}"]
            x = F.interpolate(x, fine.shape[2:], mode=self.upsampling, align_corners=False)
            x = getattr(self, f"up{level}")(torch.cat([x, fine], 1))
            features[f"up{level}"] = x
        return features

    def forward_head(self, features: Float[Tensor, "B c *space"]) -> Float[Tensor, "B K *space"]:
        """Give the logits of every pixel from the finest maps, those of up1."""
        return self.head(features)

    def forward(self, x: Float[Tensor, "B C *space"]) -> Float[Tensor, "B K *space"]:
        return self.forward_head(self.forward_features(x)["up1"])

    def fused(self) -> "UNet":
        """Give a copy for inference with batch-norm folded into the convolutions before it."""
        return fold_norms(self)
