"""Residual networks whose only orientation-dependent part, if any, is the kernels.

Stem, four stages, global average pool, linear head. Every convolution has stride 1; sides are
halved by average pooling to ``ceil(side / 2)``, which commutes with quarter turns and mirrors for
every side, odd or even. So the network is exactly invariant to these if its convolutions are
equivariant, and the two families differ in nothing but the kernels.
"""

import copy
from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sre.layers import SREConv2d

PASS_IMAGES = 64  # at once, at most, where nothing is learned
STAGES = ("stem", "stage1", "stage2", "stage3", "stage4")
Convolution = Callable[..., nn.Module]


class HalvingPool(nn.Module):
    """Average-pool to half the side, rounded up: exact under quarter turns and mirrors at any side.

    Shape: (B, C, H, W) -> (B, C, ceil(H / 2), ceil(W / 2))
    """

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H2 W2"]:
        height, width = x.shape[-2:]
        if height % 2 == width % 2 == 0:
            return F.avg_pool2d(x, 2)  # the same windows, several times faster
        return F.adaptive_avg_pool2d(x, (-(-height // 2), -(-width // 2)))


class BasicBlock(nn.Module):
    """Two convolutions and a shortcut; with ``halve``, both ways pool first.

    Shape: (B, in_channels, H, W) -> (B, out_channels, H', W')
    """

    def __init__(
        self,
        convolution: Convolution,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int,
        halve: bool,
    ):
        super().__init__()
        conv = partial(convolution, kernel_size=kernel_size, padding=kernel_size // 2, bias=False)
        self.pool = HalvingPool() if halve else nn.Identity()
        self.conv1 = conv(in_channels, out_channels)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.conv2 = conv(out_channels, out_channels)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.shortcut = nn.Identity()
        if halve or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels)
            )

    def forward(self, x: Float[Tensor, "B in_ch H W"]) -> Float[Tensor, "B out_ch H2 W2"]:
        x = self.pool(x)
        # In place: what is overwritten, no gradient asks for.
        inner = F.relu_(self.norm1(self.conv1(x)))
        return F.relu_(self.norm2(self.conv2(inner)).add_(self.shortcut(x)))


class ResNet(nn.Module):
    """A ResNet for small images: no strides, no max-pool, average pools between the stages.

    Args: convolution: builds each k x k layer, called as nn.Conv2d; kernel_sizes: one a stage
    Reference: He et al., 2016; Du et al., https://arxiv.org/abs/2501.09753, section 3
    """

    def __init__(
        self,
        convolution: Convolution,
        *,
        in_channels: int,
        num_classes: int,
        blocks: Sequence[int] = (2, 2, 2, 2),
        width: int = 64,
        kernel_sizes: Sequence[int],
        stem_kernel_size: int = 5,
    ):
        super().__init__()
        self.stem = nn.Sequential(
            convolution(
                in_channels,
                width,
                kernel_size=stem_kernel_size,
                padding=stem_kernel_size // 2,
                bias=False,
            ),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
        )
        channels = width
        for stage, (count, kernel_size) in enumerate(zip(blocks, kernel_sizes, strict=True)):
            layers = []
            for i in range(count):
                out = width * 2**stage
                layers.append(
                    BasicBlock(
                        convolution,
                        channels,
                        out,
                        kernel_size=kernel_size,
                        halve=stage > 0 and i == 0,
                    )
                )
                channels = out
            self.add_module(f"stage{stage + 1}", nn.Sequential(*layers))
        self.head = nn.Linear(channels, num_classes)
        for module in self.modules():
            _initialise(module)

    def forward_features(self, x: Float[Tensor, "B C H W"]) -> dict[str, Float[Tensor, "B c h w"]]:
        """Give the feature maps of every stage, by name, from the stem to the last."""
        features = {}
        x = x.contiguous(memory_format=torch.channels_last)  # what both kinds of kernel like best
        for name in STAGES:
            x = self.get_submodule(name)(x)
            features[name] = x
        return features

    def forward_head(self, features: Float[Tensor, "B c h w"]) -> Float[Tensor, "B K"]:
        """Pool the last stage's maps over the image and give the logits."""
        return self.head(features.mean((-2, -1)))

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K"]:
        if self._passes_in_parts(x):
            parts = x.tensor_split(-(-len(x) // PASS_IMAGES))  # even ones: small ones cost the most
            return torch.cat([self._logits(part) for part in parts])
        return self._logits(x)

    def _logits(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x)[STAGES[-1]])

    def _passes_in_parts(self, x: Tensor) -> bool:
        # Images do not meet in eval mode, and the fewer pass at once, the more stays in the cache.
        return (
            not self.training
            and not torch.is_grad_enabled()
            and not torch.compiler.is_compiling()
            and not torch.jit.is_tracing()
            and x.device.type == "cpu"
            and len(x) > PASS_IMAGES
        )

    def fused(self) -> "ResNet":
        """Give a copy for inference with batch-norm folded into the convolutions before it.

        The same function as this network in eval mode, to rounding; the copy's numbers are
        frozen, and this network is left as it is.
        """
        twin = copy.deepcopy(self).eval().requires_grad_(False)
        for module in twin.modules():
            for conv, norm in _NORMALISED:
                if isinstance(getattr(module, norm, None), nn.BatchNorm2d):
                    _fold(getattr(module, conv), getattr(module, norm))
                    setattr(module, norm, nn.Identity())
        return twin


# Names of the convolutions and of the batch-norms that follow them, in blocks and in sequences.
_NORMALISED = (("conv1", "norm1"), ("conv2", "norm2"), ("0", "1"))


def _fold(conv: nn.Module, norm: nn.BatchNorm2d) -> None:
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    bias = 0 if conv.bias is None else conv.bias.double()
    shift = norm.bias.double() + (bias - norm.running_mean.double()) * scale
    by_output = (-1,) + (1,) * (conv.weight.dim() - 1)
    weight = (conv.weight.double() * scale.view(by_output)).to(conv.weight.dtype)
    conv.weight = nn.Parameter(weight, requires_grad=False)
    conv.bias = nn.Parameter(shift.to(conv.weight.dtype), requires_grad=False)


def _initialise(module: nn.Module) -> None:
    # He initialisation by the fan-out of the dense kernel, for both kinds, as the authors do.
    if isinstance(module, nn.Conv2d | SREConv2d):
        fan_out = module.out_channels * module.kernel_size[0] * module.kernel_size[1]
        nn.init.normal_(module.weight, std=(2 / fan_out) ** 0.5)
