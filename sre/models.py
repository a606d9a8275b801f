"""The table of models: what exists, and how to build it."""

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from sre.errors import SettingError, UnknownNameError
from sre.layers import SREConv2d
from sre.resnet import Convolution, ResNet

MIN_SIDE_PX, MAX_SIDE_PX = 24, 224


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """One architecture: ``equivariant`` says whether its kernels are radially symmetric."""

    name: str
    title: str
    equivariant: bool
    convolution: Convolution
    blocks: tuple[int, int, int, int]
    summary: str


_ENTRIES = (
    ModelEntry(
        "sre_resnet18", "SRE-ResNet18", True, SREConv2d, (2, 2, 2, 2),
        "ResNet-18 with radial kernels: exactly invariant to quarter turns and mirrors.",
    ),
    ModelEntry(
        "resnet18", "ResNet-18", False, nn.Conv2d, (2, 2, 2, 2),
        "The same network with ordinary 3x3 kernels in its stages.",
    ),
)  # fmt: skip
MODELS: Mapping[str, ModelEntry] = MappingProxyType({e.name: e for e in _ENTRIES})


def find_model(name: str) -> ModelEntry:
    """Look a model up by its name.

    Raises: UnknownNameError: there is none of that name
    """
    if name in MODELS:
        return MODELS[name]
    close = difflib.get_close_matches(name, MODELS, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"choose from {', '.join(MODELS)}"
    raise UnknownNameError(f"unknown model {name!r}; {hint}")


def build_model(
    name: str,
    *,
    in_channels: int,
    num_classes: int,
    width: int = 64,
    kernel_sizes: Sequence[int] = (9, 9, 5, 5),
) -> ResNet:
    """Build an untrained network for images of 24 to 224 px a side.

    kernel_sizes, one a stage, are those of the radial kernels; the ordinary twin has the same
    topology, stem and pooling, and 3x3 kernels in its stages.

    Raises: UnknownNameError: no model has that name; SettingError: a number is out of range
    """
    entry = find_model(name)
    if in_channels < 1 or num_classes < 2 or not 1 <= width <= 512:
        raise SettingError(
            f"cannot build {name} with {in_channels} channels, {num_classes} classes and width "
            f"{width}; give at least 1 channel, 2 classes, and a width from 1 to 512"
        )
    if len(kernel_sizes) != 4 or any(k % 2 == 0 or not 1 <= k <= 15 for k in kernel_sizes):
        given = ",".join(str(k) for k in kernel_sizes)
        raise SettingError(
            f"kernel sizes must be four odd numbers from 1 to 15, got {given}; try 9,9,5,5"
        )
    return ResNet(
        entry.convolution,
        in_channels=in_channels,
        num_classes=num_classes,
        blocks=entry.blocks,
        width=width,
        kernel_sizes=tuple(kernel_sizes) if entry.equivariant else (3, 3, 3, 3),
    )


def count_parameters(model: nn.Module) -> int:
    """Count the learned numbers."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def count_multiply_adds(model: nn.Module, *, in_channels: int, side: int) -> int:
    """Count the multiply-adds of one image more, as this device computes it.

    Mere additions are free, and so is what a batch takes once, such as making dense kernels.
    """
    parameter = next(model.parameters())
    x = torch.zeros(2, in_channels, side, side, device=parameter.device, dtype=parameter.dtype)
    was_training = model.training
    model.eval()
    with torch.no_grad():
        one, two = (_count_flops(model, x[:batch]) for batch in (1, 2))
    model.train(was_training)
    return (two - one) // 2


def _count_flops(model: nn.Module, x: Tensor) -> int:
    # PyTorch's counter knows addmm, but not the in-place addmm_ of the band sums. These add, and
    # only look like convolutions channel by channel.
    mapping = {
        torch.ops.aten.addmm_: lambda _, a, b, **__: 2 * a[0] * a[1] * b[1],
        torch.ops.aten.convolution: _convolution_flops,
    }
    with FlopCounterMode(display=False, custom_mapping=mapping) as counter:
        model(x)
    return counter.get_total_flops()


def _convolution_flops(
    x: Sequence[int],
    weight: Sequence[int],
    *settings: object,
    out_shape: Sequence[int],
    **_: object,
) -> int:
    groups = settings[-1]
    is_depthwise = groups > 1 and groups == weight[0]
    return 0 if is_depthwise else 2 * math.prod(out_shape) * math.prod(weight[1:])
