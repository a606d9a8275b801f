"""Replace one convolution by a radial one: the nearest in the least-squares sense."""

import copy
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.utils import _ntuple

from sre.bands import CONVOLUTIONS
from sre.layers import RadialConv, SREConv1d, SREConv2d, SREConv3d, band_masks
from sre.pooling import SidePool, grown_side, strided_side
from sre.transposed import SREConvTranspose1d, SREConvTranspose2d, SREConvTranspose3d

Conv = nn.Conv1d | nn.Conv2d | nn.Conv3d
ConvTranspose = nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d
Value = TypeVar("Value")

_RADIAL = MappingProxyType({1: SREConv1d, 2: SREConv2d, 3: SREConv3d})
_TRANSPOSED = MappingProxyType(
    {1: SREConvTranspose1d, 2: SREConvTranspose2d, 3: SREConvTranspose3d}
)
_PADS = MappingProxyType({1: nn.ConstantPad1d, 2: nn.ConstantPad2d, 3: nn.ConstantPad3d})


class IrreplaceableError(ValueError):
    """There is no exact replacement for a layer; the text says why."""


@dataclass(frozen=True, slots=True)
class Replacement:
    """A module to stand in for another, and in words how it came about.

    Attributes: energy_kept: ``||nearest radial kernel||^2 / ||kernel||^2``, both dense; None
        where no kernel changed
    """

    module: nn.Module
    how: str
    energy_kept: float | None = None


def project(
    kernel: Float[Tensor, "a b *k"], atoms: Float[Tensor, "bands *K"]
) -> tuple[Float[Tensor, "a b bands"], float]:
    """Fit kernels by weighted sums of atoms, least squares; all are centred and zero outside.

    With the masks of the bands as atoms, each weight is the mean of the kernel over its band.

    Returns: the weights, and which share of the kernels' energy the fit keeps

    >>> plus = torch.tensor([[[[0.0, 1, 0], [1, 2, 1], [0, 1, 0]]]])
    >>> weight, energy_kept = project(plus, band_masks(3))
    >>> weight.tolist(), round(energy_kept, 6)
    ([[[2.0, 0.5]]], 0.75)
    """
    sides = [max(pair) for pair in zip(kernel.shape[2:], atoms.shape[1:], strict=True)]
    # In double precision on the CPU: small, and not every device has it.
    wanted = _centred(kernel.detach().cpu().double(), sides).flatten(2)
    basis = _centred(atoms.double(), sides).flatten(1)
    weight = wanted @ torch.linalg.pinv(basis)
    norm = float(wanted.norm())
    return weight.to(kernel), (float((weight @ basis).norm()) / norm) ** 2 if norm else 1.0


def _centred(x: Tensor, sides: Sequence[int]) -> Tensor:
    added = [(side - old) // 2 for side, old in zip(sides, x.shape[-len(sides) :], strict=True)]
    return F.pad(x, [px for px in reversed(added) for _ in range(2)])


def radial(conv: Conv, kernel_size: int | None = None) -> Replacement:
    """Give the radial layer nearest to a convolution, after a pool if that one had a stride.

    The kernel is set in the middle of one with equal odd sides and averaged over its bands. A
    stride becomes a mean to the side that it left, before the layer of stride 1. An even kernel
    has no centre pixel: it is fitted by an odd one over the means of as many pixels as the
    stride, or 2. Where one axis of three differs in stride or margin, it follows the other two.

    Raises: IrreplaceableError: the axes differ, or an even kernel cannot be centred
    """
    dims, side, dilation = _axes(conv)
    stride, shrinks = _stride_and_loss(conv)
    if side % 2 == 0:
        return _radial_over_means(conv, kernel_size, stride, shrinks)
    new_side = kernel_size or side
    # At stride 1 the margin stays, wider or narrower by as much as the kernel is.
    padding = (
        dilation * (new_side // 2) if stride > 1 else (dilation * (new_side - 1) - shrinks) // 2
    )
    layer = _empty_layer(conv, new_side, max(0, padding), dilation, conv.padding_mode)
    weight, energy_kept = project(conv.weight, band_masks(new_side, dims=dims))
    _fill(layer, conv, weight)
    module: nn.Module = layer
    how = _said_of_side(conv.kernel_size, new_side)
    if stride > 1:
        module = nn.Sequential(_strided_pool(dims, stride, shrinks), layer)
        how = f"{how}; {_said_of_stride(conv.stride, stride)}"
    elif padding < 0:
        module = nn.Sequential(_PADS[dims](padding, 0.0), layer)
        how = f"{how}; margin cut off before it"
    return Replacement(module, how, energy_kept)


def _radial_over_means(
    conv: Conv, kernel_size: int | None, stride: int, shrinks: int
) -> Replacement:
    dims, side = len(conv.kernel_size), max(conv.kernel_size)
    factor = _factor(side, stride)
    if conv.padding == "same":
        raise IrreplaceableError("an even kernel padded to the same side has no middle")
    new_side = kernel_size or _odd(-(-side // stride) if stride > 1 else side - 1)
    atoms = band_masks(new_side, dims=dims)
    if stride == 1:  # means of neighbours, at every place
        atoms = _blurred(atoms, factor)
    for axis in range(1, dims + 1 if stride > 1 else 1):  # means of blocks
        atoms = atoms.repeat_interleave(factor, axis)
    weight, energy_kept = project(conv.weight, atoms / factor**dims)
    layer = _empty_layer(conv, new_side, new_side // 2, 1, conv.padding_mode)
    _fill(layer, conv, weight)
    new, means = _square(new_side, dims), _square(factor, dims)
    how = f"no centre pixel: fitted by a {new} kernel over means of {means} pixels"
    pool = _strided_pool(dims, stride, shrinks)
    return Replacement(nn.Sequential(pool, layer), how, energy_kept)


def radial_transposed(conv: ConvTranspose, kernel_size: int | None = None) -> Replacement:
    """Give the radial layer nearest to a transposed convolution, leaving the same side.

    The stride stays, as it is symmetric here. What ``output_padding`` adds on one side is made by
    pooling to the larger side instead. An even kernel, with an even stride, is fitted by an
    ordinary odd one after every pixel was repeated as often as the stride says.

    Raises: IrreplaceableError: the axes differ, or an even kernel cannot be centred
    """
    dims, side, dilation = _axes(conv)
    margins = _ntuple(dims)(conv.padding)
    each_grows = [
        d * (k - 1) - 2 * p
        for k, d, p in zip(conv.kernel_size, conv.dilation, margins, strict=True)
    ]
    axes = list(zip(conv.stride, each_grows, conv.output_padding, strict=True))
    stride, grows, added = of_most_axes(axes, "stride, margin and output_padding")
    if side % 2 == 0:
        return _radial_over_repeats(conv, kernel_size, stride, grows + added)
    new_side = kernel_size or side
    padding = (dilation * (new_side - 1) - grows) // 2
    layer = _TRANSPOSED[dims](
        conv.in_channels, conv.out_channels, new_side, stride, max(0, padding), 0, conv.groups,
        conv.bias is not None, dilation, device=conv.weight.device, dtype=conv.weight.dtype,
    )  # fmt: skip
    weight, energy_kept = project(conv.weight, band_masks(new_side, dims=dims))
    _fill(layer, conv, weight)
    how, missing = _said_of_side(conv.kernel_size, new_side), added + 2 * max(0, -padding)
    if not missing:
        return Replacement(layer, how, energy_kept)
    pool = _strided_pool(dims, 1, -missing)
    how = f"{how}; {missing} px more by a mean and not at one edge"
    return Replacement(nn.Sequential(layer, pool), how, energy_kept)


def _radial_over_repeats(
    conv: ConvTranspose, kernel_size: int | None, stride: int, grows: int
) -> Replacement:
    dims, side = len(conv.kernel_size), max(conv.kernel_size)
    factor = _factor(side, stride)
    new_side = kernel_size or max(1, side - factor + 1)
    atoms = _blurred(band_masks(new_side, dims=dims), factor)
    # At stride 1 a pixel more is made by means of neighbours, not by repeating.
    weight, energy_kept = project(conv.weight, atoms / 2**dims if stride == 1 else atoms)
    layer = _empty_layer(conv, new_side, new_side // 2, 1, "zeros")
    by_group = weight.unflatten(0, (conv.groups, -1)).transpose(1, 2)  # as ordinary layers do
    _fill(layer, conv, by_group.flatten(0, 1))
    pool = SidePool(partial(grown_side, stride=stride, grows=grows), dims=dims)
    new, times = _square(new_side, dims), _square(factor, dims)
    how = f"no centre pixel: fitted by a {new} kernel over pixels repeated {times}"
    return Replacement(nn.Sequential(pool, layer), how, energy_kept)


def unstrided(conv: Conv | RadialConv) -> Replacement:
    """Give a pool and the same layer at stride 1, for a kernel that is radial as it is.

    Raises: IrreplaceableError: the axes differ, or a 1x1 kernel is padded
    """
    dims, (stride, shrinks) = len(conv.kernel_size), _stride_and_loss(conv)
    layer = copy.deepcopy(conv)
    layer.stride = (1,) * dims
    if isinstance(layer, RadialConv):
        layer.padding = conv.dilation[0] * (conv.kernel_size[0] // 2)
    elif shrinks:
        raise IrreplaceableError("a kernel of one pixel with a margin")
    pool = _strided_pool(dims, stride, shrinks)
    return Replacement(nn.Sequential(pool, layer), _said_of_stride(conv.stride, stride))


def of_most_axes(values: Sequence[Value], what: str) -> Value:
    """Give the value that most axes share.

    Raises: IrreplaceableError: no value has a majority, so that the layer has a direction
    """
    value, count = Counter(values).most_common(1)[0]
    if 2 * count <= len(values):
        raise IrreplaceableError(f"its {what} differ along the axes")
    return value


def _axes(conv: Conv | ConvTranspose) -> tuple[int, int, int]:
    sides = conv.kernel_size
    if len({side % 2 for side in sides}) > 1:
        raise IrreplaceableError(f"its sides are even and odd: {_times(sides)}")
    if len(set(conv.dilation)) > 1:
        raise IrreplaceableError(f"its dilation differs along the axes: {_times(conv.dilation)}")
    if sides[0] % 2 == 0 and conv.dilation[0] > 1:
        raise IrreplaceableError(f"an even kernel with dilation: {_times(sides)}")
    return len(sides), max(sides), conv.dilation[0]


def _stride_and_loss(conv: Conv | RadialConv) -> tuple[int, int]:
    # The loss: pixels by which the side shrinks at stride 1.
    dims = len(conv.kernel_size)
    padding = _ntuple(dims)(0 if isinstance(conv.padding, str) else conv.padding)
    shrinks = [
        0 if conv.padding == "same" else d * (k - 1) - 2 * p
        for k, d, p in zip(conv.kernel_size, conv.dilation, padding, strict=True)
    ]
    return of_most_axes(list(zip(conv.stride, shrinks, strict=True)), "stride and margin")


def _factor(side: int, stride: int) -> int:
    # So many pixels an axis share a weight. On an odd number no even kernel can be centred.
    if stride > 1 and stride % 2:
        raise IrreplaceableError(
            f"an even kernel, {side}, has no middle at an odd stride, {stride}"
        )
    return max(2, stride)


def _strided_pool(dims: int, stride: int, shrinks: int) -> SidePool:
    return SidePool(partial(strided_side, stride=stride, shrinks=shrinks), dims=dims)


def _empty_layer(
    conv: Conv | ConvTranspose, kernel_size: int, padding: int, dilation: int, padding_mode: str
) -> RadialConv:
    return _RADIAL[len(conv.kernel_size)](
        conv.in_channels, conv.out_channels, kernel_size, 1, padding, dilation, conv.groups,
        conv.bias is not None, padding_mode, conv.weight.device, conv.weight.dtype,
    )  # fmt: skip


def _blurred(masks: Tensor, factor: int) -> Tensor:
    # Each pixel of a mask spread over as many as factor, an axis.
    dims = masks.dim() - 1
    box = torch.ones(1, 1, *(factor,) * dims)
    return CONVOLUTIONS[dims](masks[:, None], box, padding=factor - 1)[:, 0]


def _fill(layer: RadialConv, conv: Conv | ConvTranspose, weight: Tensor) -> None:
    with torch.no_grad():
        layer.weight.copy_(weight)
    layer.weight.requires_grad_(conv.weight.requires_grad)
    layer.bias = None if conv.bias is None else nn.Parameter(conv.bias, conv.bias.requires_grad)


def _odd(side: int) -> int:
    return side + 1 - side % 2


def _said_of_side(sides: tuple[int, ...], new_side: int) -> str:
    if set(sides) == {new_side}:
        return "averaged over its bands"
    if new_side >= max(sides):
        return f"averaged over bands, zero outside its {_times(sides)} pixels"
    return f"averaged over bands, cut off outside its middle {_square(new_side, len(sides))} pixels"


def _said_of_stride(strides: tuple[int, ...], stride: int) -> str:
    if set(strides) == {stride}:
        return f"stride {stride} became a mean"
    return f"stride {_times(strides)} became a mean as by stride {stride}"


def _square(side: int, dims: int) -> str:
    return _times((side,) * dims)


def _times(sides: Sequence[int]) -> str:
    return "x".join(map(str, sides))
