"""Residual networks whose only orientation-dependent part, if any, is the kernels.

Stem, four stages, global average pool, linear head. Every convolution has stride 1; sides are
halved by average pooling to ``ceil(side / 2)``, which commutes with quarter turns and mirrors for
every side, odd or even. So the network is exactly invariant to these if its convolutions are
equivariant, and the two families differ in nothing but the kernels.
"""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sre.layers import RadialConv

# Where nothing is learned, so many images pass at once, and 10 MB of the widest maps, at most: then
# what one layer leaves is still near the processor for the next. Measured at widths 16 and 64.
PASS_IMAGES, PASS_VALUES = 64, 5 * 2**19
# glibc gives memory back to the system as soon as twice the largest block that it ever saw returned
# is free, and gets it anew, page by page, for the next layer: a tenth of a pass. So it is shown one
# of nearly 32 MB, the largest that counts; nothing is written to it, and it takes microseconds.
_LARGE_BLOCK_BYTES = 2**25 - 2**14
STAGES = ("stem", "stage1", "stage2", "stage3", "stage4")
Convolution = Callable[..., nn.Module]
Network = TypeVar("Network", bound=nn.Module)


class HalvingPool(nn.Module):
    """Average-pool to half the side, rounded up: exact under quarter turns and mirrors at any side.

    Args: blurs: first weigh each pixel and its neighbours by 1, 2, 1 along every axis, so that what
        is too fine for the coarser grid does not fold into what is not; the edge is repeated

    Shape: (B, C, H, W) -> (B, C, ceil(H / 2), ceil(W / 2)), volumes alike
    Reference: of the blur, Zhang, 2019, https://arxiv.org/abs/1904.11486

    >>> HalvingPool()(torch.randn(1, 8, 7, 7)).shape
    torch.Size([1, 8, 4, 4])
    """

    def __init__(self, *, blurs: bool = False):
        super().__init__()
        self.blurs = blurs

    def forward(self, x: Float[Tensor, "B C *space"]) -> Float[Tensor, "B C *_"]:
        sides = x.shape[2:]
        exact, adaptive = _POOLS[len(sides)]
        if self.blurs:
            x = F.pad(x, (1, 1) * len(sides), mode="replicate")
            x = exact(exact(x, 2, 1), 2, 1)  # means of two, of means of two
        if all(side % 2 == 0 for side in sides):
            return exact(x, 2)  # the same windows, several times faster
        return adaptive(x, [-(-side // 2) for side in sides])

    def extra_repr(self) -> str:
        return "blurs=True" if self.blurs else ""


_Pool = Callable[..., Tensor]
_POOLS: Mapping[int, tuple[_Pool, _Pool]] = MappingProxyType(
    {2: (F.avg_pool2d, F.adaptive_avg_pool2d), 3: (F.avg_pool3d, F.adaptive_avg_pool3d)}
)
POINTWISE = MappingProxyType({2: nn.Conv2d, 3: nn.Conv3d})
NORMS = MappingProxyType({2: nn.BatchNorm2d, 3: nn.BatchNorm3d})


class BasicBlock(nn.Module):
    """Two convolutions and a shortcut; with ``halve``, both ways pool first.

    Shape: (B, in_channels, *space) -> (B, channels, *space')

    >>> block = BasicBlock(nn.Conv2d, 8, 16, kernel_size=3, halve=True)
    >>> block(torch.randn(1, 8, 28, 28)).shape
    torch.Size([1, 16, 14, 14])
    """

    expansion = 1

    def __init__(
        self,
        convolution: Convolution,
        in_channels: int,
        channels: int,
        *,
        kernel_size: int,
        halve: bool,
        blurs: bool = False,
        dims: int = 2,
    ):
        super().__init__()
        conv = partial(convolution, kernel_size=kernel_size, padding=kernel_size // 2, bias=False)
        self.pool = HalvingPool(blurs=blurs) if halve else nn.Identity()
        self.conv1 = conv(in_channels, channels)
        self.norm1 = NORMS[dims](channels)
        self.conv2 = conv(channels, channels)
        self.norm2 = NORMS[dims](channels)
        self.shortcut = _shortcut(in_channels, channels, halve, dims)

    def forward(self, x: Float[Tensor, "B in_ch *space"]) -> Float[Tensor, "B out_ch *_"]:
        x = self.pool(x)
        # In place: what is overwritten, no gradient asks for.
        inner = F.relu_(self.norm1(self.conv1(x)))
        return F.relu_(self.norm2(self.conv2(inner)).add_(self.shortcut(x)))


class Bottleneck(nn.Module):
    """One k x k convolution between two that mix channels only; pools, if at all, before it.

    Shape: (B, in_channels, *space) -> (B, 4 * channels, *space')

    >>> block = Bottleneck(nn.Conv2d, 8, 16, kernel_size=3, halve=True)
    >>> block(torch.randn(1, 8, 28, 28)).shape
    torch.Size([1, 64, 14, 14])
    """

    expansion = 4

    def __init__(
        self,
        convolution: Convolution,
        in_channels: int,
        channels: int,
        *,
        kernel_size: int,
        halve: bool,
        blurs: bool = False,
        dims: int = 2,
    ):
        super().__init__()
        out_channels, pointwise, norm = self.expansion * channels, POINTWISE[dims], NORMS[dims]
        self.conv1 = pointwise(in_channels, channels, 1, bias=False)
        self.norm1 = norm(channels)
        self.pool = HalvingPool(blurs=blurs) if halve else nn.Identity()
        self.conv2 = convolution(
            channels, channels, kernel_size=kernel_size, padding=kernel_size // 2, bias=False
        )
        self.norm2 = norm(channels)
        self.conv3 = pointwise(channels, out_channels, 1, bias=False)
        self.norm3 = norm(out_channels)
        self.shortcut = _shortcut(in_channels, out_channels, halve, dims)

    def forward(self, x: Float[Tensor, "B in_ch *space"]) -> Float[Tensor, "B out_ch *_"]:
        inner = self.pool(F.relu_(self.norm1(self.conv1(x))))
        inner = F.relu_(self.norm2(self.conv2(inner)))
        return F.relu_(self.norm3(self.conv3(inner)).add_(self.shortcut(self.pool(x))))


def _shortcut(in_channels: int, out_channels: int, halve: bool, dims: int) -> nn.Module:
    if not halve and in_channels == out_channels:
        return nn.Identity()
    pointwise = POINTWISE[dims](in_channels, out_channels, 1, bias=False)
    return nn.Sequential(pointwise, NORMS[dims](out_channels))


class ResNet(nn.Module):
    """A ResNet for small images or volumes: no strides, no max-pool, pools between the stages.

    Args: convolution: builds each k x k layer, called as nn.Conv2d; kernel_sizes: one a stage;
        dims: 2 for images, 3 for volumes; pools_stem: halve the side after the stem, too;
        blur_pools: blur before every halving
    Reference: He et al., 2016; Du et al., https://arxiv.org/abs/2501.09753, section 3

    >>> settings = {"in_channels": 1, "num_classes": 4, "width": 8, "kernel_sizes": (9, 9, 5, 5)}
    >>> from sre.layers import SREConv2d
    >>> net, x = ResNet(SREConv2d, **settings).eval(), torch.randn(2, 1, 28, 28)
    >>> net(x).shape, net.forward_features(x)["stage2"].shape
    (torch.Size([2, 4]), torch.Size([2, 16, 14, 14]))
    """

    def __init__(
        self,
        convolution: Convolution,
        *,
        in_channels: int,
        num_classes: int,
        block: type[BasicBlock] | type[Bottleneck] = BasicBlock,
        blocks: Sequence[int] = (2, 2, 2, 2),
        width: int = 64,
        kernel_sizes: Sequence[int],
        stem_kernel_size: int = 5,
        dims: int = 2,
        pools_stem: bool = False,
        blur_pools: bool = False,
    ):
        super().__init__()
        self.width = width
        self.stem = nn.Sequential(
            convolution(
                in_channels,
                width,
                kernel_size=stem_kernel_size,
                padding=stem_kernel_size // 2,
                bias=False,
            ),
            NORMS[dims](width),
            nn.ReLU(inplace=True),
            *([HalvingPool(blurs=blur_pools)] if pools_stem else []),
        )
        channels = width
        for stage, (count, kernel_size) in enumerate(zip(blocks, kernel_sizes, strict=True)):
            layers = []
            for i in range(count):
                layers.append(
                    block(
                        convolution,
                        channels,
                        width * 2**stage,
                        kernel_size=kernel_size,
                        halve=stage > 0 and i == 0,
                        blurs=blur_pools,
                        dims=dims,
                    )
                )
                channels = width * 2**stage * block.expansion
            self.add_module(f"stage{stage + 1}", nn.Sequential(*layers))
        self.head = nn.Linear(channels, num_classes)
        initialise(self)

    def forward_features(
        self, x: Float[Tensor, "B C *space"]
    ) -> dict[str, Float[Tensor, "B c *_"]]:
        """Give the feature maps of every stage, by name, from the stem to the last."""
        features = {}
        x = channels_last(x)
        for name in STAGES:
            x = getattr(self, name)(x)
            features[name] = x
        return features

    def forward_head(self, features: Float[Tensor, "B c *space"]) -> Float[Tensor, "B K"]:
        """Pool the last stage's maps over the image and give the logits."""
        return self.head(features.mean(tuple(range(2, features.dim()))))

    def forward(self, x: Float[Tensor, "B C *space"]) -> Float[Tensor, "B K"]:
        if self._passes_in_parts(x):
            torch.empty(_LARGE_BLOCK_BYTES, dtype=torch.uint8)
            images = PASS_VALUES // max(1, self.width * math.prod(x.shape[2:]))
            images = min(PASS_IMAGES, max(1, images))
            if len(x) > images:
                parts = x.tensor_split(-(-len(x) // images))  # even ones: small ones cost the most
                return torch.cat([self._logits(part) for part in parts])
        return self._logits(x)

    def _logits(self, x: Tensor) -> Tensor:
        x = channels_last(x)
        for name in STAGES:  # without holding what each stage gave
            x = getattr(self, name)(x)
        return self.forward_head(x)

    def _passes_in_parts(self, x: Tensor) -> bool:
        # Images do not meet in eval mode.
        return (
            not self.training
            and not torch.is_grad_enabled()
            and not torch.compiler.is_compiling()
            and not torch.jit.is_tracing()
            and x.device.type == "cpu"
        )

    def fused(self) -> "ResNet":
        """Give a copy for inference with batch-norm folded into the convolutions before it.

        The same function as this network in eval mode, to rounding; the copy's numbers are
        frozen, and this network is left as it is.
        """
        return fold_norms(self)


# Names of the convolutions and of the batch-norms that follow them, in blocks and in sequences.
_NORMALISED = (("conv1", "norm1"), ("conv2", "norm2"), ("conv3", "norm3"), ("0", "1"))


def fold_norms(model: Network) -> Network:
    """Give a copy for inference with batch-norm folded into the convolutions before it.

    >>> net = ResNet(nn.Conv2d, in_channels=1, num_classes=2, width=4, kernel_sizes=(3, 3, 3, 3))
    >>> net, x = net.eval(), torch.randn(1, 1, 24, 24)
    >>> torch.allclose(fold_norms(net)(x), net(x), atol=1e-4)
    True
    """
    twin = copy.deepcopy(model).eval().requires_grad_(False)
    for module in twin.modules():
        for conv, norm in _NORMALISED:
            if isinstance(getattr(module, norm, None), tuple(NORMS.values())):
                _fold(getattr(module, conv), getattr(module, norm))
                setattr(module, norm, nn.Identity())
    return twin


def _fold(conv: Any, norm: Any) -> None:
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    bias = 0 if conv.bias is None else conv.bias.double()
    shift = norm.bias.double() + (bias - norm.running_mean.double()) * scale
    by_output = (-1,) + (1,) * (conv.weight.dim() - 1)
    weight = (conv.weight.double() * scale.view(by_output)).to(conv.weight.dtype)
    conv.weight = nn.Parameter(weight, requires_grad=False)
    conv.bias = nn.Parameter(shift.to(conv.weight.dtype), requires_grad=False)


def channels_last(x: Float[Tensor, "B C *space"]) -> Float[Tensor, "B C *space"]:
    """Lay images out as both kinds of kernel like them best; volumes stay as they are.

    >>> channels_last(torch.zeros(1, 2, 3, 3)).is_contiguous(memory_format=torch.channels_last)
    True
    """
    return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x


def initialise(model: nn.Module) -> None:
    """Draw weights as He et al. do, by the fan-out of the dense kernel, for all kinds of kernel.

    Reference: the authors' code of SRE-Conv

    >>> layer = nn.Conv2d(3, 64, 5)
    >>> initialise(layer)
    >>> abs(float(layer.weight.detach().std()) - (2 / (64 * 5 * 5)) ** 0.5) < 0.01
    True
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d | RadialConv):
            fan_out = module.out_channels * math.prod(module.kernel_size)
            nn.init.normal_(module.weight, std=(2 / fan_out) ** 0.5)
