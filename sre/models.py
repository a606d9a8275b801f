"""The table of models: what exists, and how to build it."""

import copy
import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from sre.errors import SettingError, UnknownNameError
from sre.gmr import GMRConv2d, GMRConv3d
from sre.layers import RadialConv, SREConv2d, SREConv3d
from sre.resnet import Bottleneck, Convolution, ResNet
from sre.unet import UNet

MIN_SIDE_PX, MAX_SIDE_PX = 24, 224
MAX_VOLUME_SIDE_PX = 64


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """One architecture; ``family`` says what its kernels are like.

    >>> entry = find_model("sre_r3d_18")
    >>> entry.dims, entry.sides_px, entry.kernel_sizes
    (3, (24, 64), (5, 5, 5, 5))
    """

    name: str
    title: str
    family: Literal["sre", "gmr", "plain"]
    dims: int  # 2: images, 3: volumes
    labels: Literal["image", "pixels"]  # what gets a label: the whole, or each of its pixels
    convolution: Convolution
    network: Callable[..., ResNet | UNet]
    kernel_sizes: tuple[int, int, int, int]  # one a stage, unless others are asked for
    summary: str

    @property
    def equivariant(self) -> bool:
        """Tell whether its kernels are radially symmetric."""
        return self.family != "plain"

    @property
    def sides_px(self) -> tuple[int, int]:
        """Smallest and largest side of the images or volumes it is made for."""
        return MIN_SIDE_PX, MAX_SIDE_PX if self.dims == 2 else MAX_VOLUME_SIDE_PX


_18, _34 = partial(ResNet, blocks=(2, 2, 2, 2)), partial(ResNet, blocks=(3, 4, 6, 3))
_50 = partial(ResNet, block=Bottleneck, blocks=(3, 4, 6, 3))
# The authors' stem of 3 x 7 x 7 voxels has weights within its inner 3 x 3 x 3 alone.
_R3D = partial(ResNet, blocks=(2, 2, 2, 2), dims=3, stem_kernel_size=3)
_UNET, _UNET_3D = partial(UNet, dims=2), partial(UNet, dims=3)
_FLAT, _SOLID, _PLAIN = (9, 9, 5, 5), (5, 5, 5, 5), (3, 3, 3, 3)

_ENTRIES = (
    ModelEntry(
        "sre_resnet18", "SRE-ResNet18", "sre", 2, "image", SREConv2d, _18, _FLAT,
        "ResNet-18 with radial kernels: exactly invariant to quarter turns and mirrors.",
    ),
    ModelEntry(
        "resnet18", "ResNet-18", "plain", 2, "image", nn.Conv2d, _18, _PLAIN,
        "The same network with ordinary 3x3 kernels in its stages.",
    ),
    ModelEntry(
        "gmr_resnet18", "GMR-ResNet18", "gmr", 2, "image", GMRConv2d, _18, _FLAT,
        "The same network with Gaussian mixture rings, as invariant as SRE-ResNet18.",
    ),
    ModelEntry(
        "sre_resnet34", "SRE-ResNet34", "sre", 2, "image", SREConv2d, _34, _FLAT,
        "ResNet-34 with radial kernels: twice as many blocks.",
    ),
    ModelEntry(
        "resnet34", "ResNet-34", "plain", 2, "image", nn.Conv2d, _34, _PLAIN,
        "The same network with ordinary 3x3 kernels in its stages.",
    ),
    ModelEntry(
        "gmr_resnet34", "GMR-ResNet34", "gmr", 2, "image", GMRConv2d, _34, _FLAT,
        "The same network with Gaussian mixture rings.",
    ),
    ModelEntry(
        "sre_resnet50", "SRE-ResNet50", "sre", 2, "image", SREConv2d, _50, _FLAT,
        "ResNet-50 with radial kernels between its 1x1 convolutions.",
    ),
    ModelEntry(
        "resnet50", "ResNet-50", "plain", 2, "image", nn.Conv2d, _50, _PLAIN,
        "The same network with ordinary 3x3 kernels in its stages.",
    ),
    ModelEntry(
        "gmr_resnet50", "GMR-ResNet50", "gmr", 2, "image", GMRConv2d, _50, _FLAT,
        "The same network with Gaussian mixture rings.",
    ),
    ModelEntry(
        "sre_r3d_18", "SRE-R3D-18", "sre", 3, "image", SREConv3d, _R3D, _SOLID,
        "ResNet-18 for volumes: exactly invariant to the 48 symmetries of a cube.",
    ),
    ModelEntry(
        "r3d_18", "R3D-18", "plain", 3, "image", nn.Conv3d, _R3D, _PLAIN,
        "The same network with ordinary 3x3x3 kernels in its stages.",
    ),
    ModelEntry(
        "gmr_r3d_18", "GMR-R3D-18", "gmr", 3, "image", GMRConv3d, _R3D, _SOLID,
        "The same network with Gaussian mixture shells.",
    ),
    ModelEntry(
        "sre_unet", "SRE-U-Net", "sre", 2, "pixels", SREConv2d, _UNET, _FLAT,
        "A U-Net with radial kernels: a turned image gets the turned logits.",
    ),
    ModelEntry(
        "unet", "U-Net", "plain", 2, "pixels", nn.Conv2d, _UNET, _PLAIN,
        "The same network with ordinary 3x3 kernels.",
    ),
    ModelEntry(
        "gmr_unet", "GMR-U-Net", "gmr", 2, "pixels", GMRConv2d, _UNET, _FLAT,
        "The same network with Gaussian mixture rings.",
    ),
    ModelEntry(
        "sre_unet_3d", "SRE-U-Net, 3-D", "sre", 3, "pixels", SREConv3d, _UNET_3D, _SOLID,
        "A U-Net for volumes with kernels of shells: exact for the 48 symmetries of a cube.",
    ),
    ModelEntry(
        "unet_3d", "U-Net, 3-D", "plain", 3, "pixels", nn.Conv3d, _UNET_3D, _PLAIN,
        "The same network with ordinary 3x3x3 kernels.",
    ),
    ModelEntry(
        "gmr_unet_3d", "GMR-U-Net, 3-D", "gmr", 3, "pixels", GMRConv3d, _UNET_3D, _SOLID,
        "The same network with Gaussian mixture shells.",
    ),
)  # fmt: skip
MODELS: Mapping[str, ModelEntry] = MappingProxyType({e.name: e for e in _ENTRIES})
# What can be trained and shown on images so far.
CLASSIFIERS = tuple(e.name for e in _ENTRIES if e.dims == 2 and e.labels == "image")


def find_model(name: str) -> ModelEntry:
    """Look a model up by its name.

    Raises: UnknownNameError: there is none of that name

    >>> find_model("sre_resnet18").equivariant
    True
    >>> find_model("sre_resnet81")
    Traceback (most recent call last):
    sre.errors.UnknownNameError: unknown model ...
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
    kernel_sizes: Sequence[int] | None = None,
    blur_pools: bool = False,
) -> ResNet | UNet:
    """Build an untrained network for images of 24 to 224 px a side, or volumes of 24 to 64.

    kernel_sizes, one a stage, are those of the radial kernels, by default 9, 9, 5, 5 for images and
    5, 5, 5, 5 for volumes; the ordinary twins have the same topology, stem and pooling, and
    kernels of side 3 in their stages. blur_pools: the pools of a ResNet blur before they halve.

    Raises: UnknownNameError: no model has that name; SettingError: a number is out of range, or a
        U-Net is to blur its pools

    >>> model = build_model("sre_resnet18", in_channels=3, num_classes=9, width=16).eval()
    >>> image = torch.randn(1, 3, 28, 28)
    >>> torch.allclose(model(image.rot90(1, (-2, -1))), model(image), atol=1e-4)
    True
    """
    entry = find_model(name)
    if in_channels < 1 or num_classes < 2 or not 1 <= width <= 512:
        raise SettingError(
            f"cannot build {name} with {in_channels} channels, {num_classes} classes and width "
            f"{width}; give at least 1 channel, 2 classes, and a width from 1 to 512"
        )
    sizes = entry.kernel_sizes if kernel_sizes is None else tuple(kernel_sizes)
    if len(sizes) != 4 or any(k % 2 == 0 or not 1 <= k <= 15 for k in sizes):
        given = ",".join(str(k) for k in sizes)
        raise SettingError(
            f"kernel sizes must be four odd numbers from 1 to 15, got {given}; try 9,9,5,5"
        )
    if blur_pools and entry.labels == "pixels":
        raise SettingError(
            f"{name} labels pixels, for which blurred pools are not made; leave blur_pools away"
        )
    return entry.network(
        entry.convolution,
        in_channels=in_channels,
        num_classes=num_classes,
        width=width,
        kernel_sizes=sizes if entry.equivariant else entry.kernel_sizes,
        **({"blur_pools": True} if blur_pools else {}),
    )


def count_parameters(model: nn.Module) -> int:
    """Count the learned numbers.

    >>> count_parameters(build_model("sre_resnet18", in_channels=3, num_classes=9))
    3996105
    """
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def count_multiply_adds(model: nn.Module, *, in_channels: int, side: int, dims: int = 2) -> int:
    """Count the multiply-adds of one image (or volume, dims=3) more, as this device computes it.

    Mere additions are free, and so is what a batch takes once, such as making dense kernels. Radial
    layers count as sums over bands, also where products of spectra are quicker: which way that is
    depends on the batch.

    >>> layer = nn.Conv2d(2, 4, 3, padding=1)
    >>> count_multiply_adds(layer, in_channels=2, side=10) == 2 * 4 * 3**2 * 10**2
    True
    """
    parameter = next(model.parameters())
    shape = (2, in_channels, *(side,) * dims)
    x = torch.zeros(shape, device=parameter.device, dtype=parameter.dtype)
    twin = copy.deepcopy(model).eval()
    for module in twin.modules():
        if isinstance(module, RadialConv):
            module.allows_spectra = False
    with torch.no_grad():
        one, two = (_count_flops(twin, x[:batch]) for batch in (1, 2))
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
    *settings: Any,
    out_shape: Sequence[int],
    **_: object,
) -> int:
    groups = settings[-1]
    is_depthwise = groups > 1 and groups == weight[0]
    return 0 if is_depthwise else 2 * math.prod(out_shape) * math.prod(weight[1:])
