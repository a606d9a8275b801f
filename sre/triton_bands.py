"""Sums over bands on a GPU: the same function as in ``sre.bands``, in two fused Triton kernels.

A program holds a block of pixels. It adds up a band in registers, from loads that the cache next to
the processor answers, multiplies the sum by the band's weights at once, and goes on to the next
band: no sum ever goes through memory, and one launch does a whole layer. A pixel and channel
then cost as many loads as the kernel has pixels and as many products as it has bands; the dense
kernel has as many products as pixels.

Both gradients need the band sums of the incoming gradient alone (see ``sre.bands``): that of x is
the same kernel with the weights transposed, that of the weights has a kernel of its own.
"""

import math
import statistics
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from sre.bands import CONVOLUTIONS, BandConv, band_index, dense_kernel

# No float16: a sum over a band, rounded to it before the product, can exceed its range.
DTYPES = (torch.float32, torch.bfloat16)
_PIXELS, _CHANNELS = 64, 32  # of a block: its sums and its results fit into registers
_SPLITS, _PROGRAMS = 32, 2048  # the gradient of the weights: parts of the pixels, and programs
_ROUNDS, _WARMUPS = 5, 3
_OPTIONS = MappingProxyType({"enable_fp_fusion": True})  # as Triton would without being told


class Layer(NamedTuple):
    """What tells one convolution's cost from another's, on one device."""

    shape: tuple[int, ...]  # of x, (B, C, *space)
    is_channels_last: bool
    out_channels: int
    kernel_size: int
    circular: bool
    dtype: torch.dtype
    device: torch.device
    trains: bool  # whether gradients are asked for, too


def fused_band_conv(
    x: Float[Tensor, "B *space C"],
    weight: Float[Tensor, "bands C O"],
    bias: Float[Tensor, " O"] | None,
    kernel_size: int,
    circular: bool,
) -> Float[Tensor, "B *space O"]:
    """Convolve with zero padding, as `sre.bands.band_conv` does; on one to three axes.

    Adds up in single precision; values of half precision are rounded to it before the products, as
    everywhere. Differentiable once.
    """
    if torch.is_grad_enabled():
        return BandConv.apply(x, weight, bias, kernel_size, circular, _convolve, _gradients)
    return _convolve(x, weight, bias, kernel_size, circular)


def is_faster(layer: Layer) -> bool:
    """Tell whether the kernels beat cuDNN's convolution with the dense kernel, by timing both.

    Measured at the first input of its kind, on numbers of its own, and remembered. Batches count
    by the next power of two. While a CUDA graph is recorded nothing can be timed: what has not been
    met before it is then convolved with the dense kernel.
    """
    if layer.device.type != "cuda":
        return False
    batch, *others = layer.shape
    rounded = 1 << max(0, batch - 1).bit_length()
    if batch != rounded:  # every pass asks: what need not be made anew is not
        layer = layer._replace(shape=(rounded, *others))
    try:
        return _is_faster(layer, _precision(layer.dtype))
    except _NoTimeError:
        return False


class _NoTimeError(Exception):
    pass


@lru_cache(maxsize=512)
def _is_faster(layer: Layer, precision: str) -> bool:
    del precision  # cuDNN and the kernels read it where it is set; a choice is for one of them
    with torch.cuda.device(layer.device):
        if torch.cuda.is_current_stream_capturing():
            raise _NoTimeError  # so that nothing is remembered
    # In a thread of its own, which has none of the caller's modes and hooks.
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(_contest, layer).result()


def _contest(layer: Layer) -> bool:
    dims, half = len(layer.shape) - 2, layer.kernel_size // 2
    bands = int(band_index(layer.kernel_size, layer.circular, dims).max()) + 1
    try:
        with torch.cuda.device(layer.device), torch.set_grad_enabled(layer.trains):
            # Nothing is drawn from the generator that the caller may have seeded.
            make = partial(torch.full, fill_value=0.5, dtype=layer.dtype, device=layer.device)
            x = make(layer.shape)
            if layer.is_channels_last:
                x = x.movedim(1, -1).contiguous().movedim(-1, 1)
            weight = make((bands, layer.shape[1], layer.out_channels))
            masks = make((bands, *(layer.kernel_size,) * dims))
            inputs = x.requires_grad_(layer.trains), weight.requires_grad_(layer.trains)

            def fused() -> Tensor:
                pixels = x.movedim(1, -1).contiguous()
                y = fused_band_conv(pixels, weight, None, layer.kernel_size, layer.circular)
                return y.movedim(-1, 1)

            def dense() -> Tensor:
                return CONVOLUTIONS[dims](x, dense_kernel(weight, masks), padding=half)

            return _time_ms(fused, inputs) < _time_ms(dense, inputs)
    except Exception:  # noqa: BLE001 - whatever a driver or compiler may lack, the dense way is there
        return False


def _time_ms(way: Callable[[], Tensor], inputs: tuple[Tensor, Tensor]) -> float:
    found = []
    for _ in range(_WARMUPS + _ROUNDS):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        y = way()
        if y.requires_grad:
            torch.autograd.grad(y.sum(), inputs)
        end.record()
        end.synchronize()
        found.append(begin.elapsed_time(end))
    return statistics.median(found[_WARMUPS:])


def _gradients(
    x: Tensor,
    weight: Tensor,
    grad: Tensor,
    kernel_size: int,
    circular: bool,
    wants_x: bool,
    wants_weight: bool,
) -> tuple[Tensor | None, Tensor | None]:
    grad_x = grad_weight = None
    if wants_x:
        grad_x = _convolve(grad, weight.transpose(1, 2), None, kernel_size, circular)
    if wants_weight:
        grad_weight = _weight_gradient(x, grad, kernel_size, circular)
    return grad_x, grad_weight


def _convolve(
    x: Tensor, weight: Tensor, bias: Tensor | None, kernel_size: int, circular: bool
) -> Tensor:
    x, weight = x.contiguous(), weight.contiguous()
    bands, channels, out_channels = weight.shape
    out = x.new_empty(*x.shape[:-1], out_channels)
    pixels, depth, height, width = _grid(x)
    if not out.numel():
        return out
    steps, starts = _steps(kernel_size, circular, x.dim() - 2, x.device)
    block_out = min(128, max(16, triton.next_power_of_2(out_channels)))
    with torch.cuda.device_of(x):  # Triton would take the current one
        _mix_bands[triton.cdiv(pixels, _PIXELS), triton.cdiv(out_channels, block_out)](
            x, weight, weight if bias is None else bias, out, steps, starts,
            pixels, depth, height, width, channels, out_channels, bands,
            HAS_BIAS=bias is not None, PRECISION=_precision(x.dtype),
            PIXELS=_PIXELS, CHANNELS=_channels(channels), OUT=block_out, **_OPTIONS,
        )  # fmt: skip
    return out


def _weight_gradient(x: Tensor, grad: Tensor, kernel_size: int, circular: bool) -> Tensor:
    x = x.contiguous()
    channels, out_channels = x.shape[-1], grad.shape[-1]
    pixels, depth, height, width = _grid(x)
    steps, starts = _steps(kernel_size, circular, x.dim() - 2, x.device)
    bands = len(starts) - 1
    if not pixels or not channels * out_channels:
        return x.new_zeros(bands, channels, out_channels)
    block_in, block_out = _channels(channels), _channels(out_channels)
    tiles = triton.cdiv(channels, block_in) * triton.cdiv(out_channels, block_out)
    most = max(1, min(_SPLITS, _PROGRAMS // (bands * tiles)))
    splits = min(most, triton.cdiv(pixels, _PIXELS))
    each = triton.cdiv(triton.cdiv(pixels, splits), _PIXELS) * _PIXELS
    # Every part has a place of its own, so that the sum does not hang on who comes first.
    parts = x.new_empty(splits, bands, channels, out_channels, dtype=torch.float32)
    with torch.cuda.device_of(x):
        _mix_pixels[bands, tiles, splits](
            x, grad, parts, steps, starts,
            pixels, depth, height, width, channels, out_channels, bands, each,
            PRECISION=_precision(x.dtype), PIXELS=_PIXELS, IN=block_in, OUT=block_out, **_OPTIONS,
        )  # fmt: skip
    return parts.sum(0).to(x.dtype)


def _grid(x: Tensor) -> tuple[int, int, int, int]:
    space = x.shape[1:-1]
    depth, height, width = (1,) * (3 - len(space)) + tuple(space)
    return len(x) * math.prod(space), depth, height, width


def _channels(count: int) -> int:
    return min(_CHANNELS, max(16, triton.next_power_of_2(count)))  # a product has 16 or more


def _precision(dtype: torch.dtype) -> str:
    # What cuDNN would be allowed. Once the setting of PyTorch 2.9 and later is used, the older one
    # cannot be read.
    if dtype != torch.float32:
        return "ieee"
    conv = getattr(torch.backends.cudnn, "conv", None)
    if conv is not None and conv.fp32_precision in ("ieee", "tf32"):
        return conv.fp32_precision
    return "tf32" if torch.backends.cudnn.allow_tf32 else "ieee"


@lru_cache(maxsize=64)
def _steps(
    kernel_size: int, circular: bool, dims: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    # Band after band, the steps (depth, height, width) from the centre to its pixels; and where in
    # this list each band starts.
    index, half = band_index(kernel_size, circular, dims), kernel_size // 2
    of_band = [np.argwhere(index == band) - half for band in range(index.max() + 1)]
    steps = np.pad(np.concatenate(of_band), ((0, 0), (3 - dims, 0)))
    starts = np.cumsum([0, *map(len, of_band)])
    with torch.inference_mode(False):
        # Row by row: PyTorch keeps the order in which NumPy happens to have them.
        first, second = (
            torch.tensor(np.ascontiguousarray(a), dtype=torch.int32, device=device)
            for a in (steps, starts)
        )
    return first, second


@triton.jit
def _sum_band(
    maps, steps, first, last, pixel, pixels, depth, height, width, channel, channels,
    PIXELS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    px, py, pz = pixel % width, pixel // width % height, pixel // (width * height) % depth
    summed = tl.zeros((PIXELS, CHANNELS), tl.float32)
    for step in range(first, last):
        dz, dy = tl.load(steps + 3 * step), tl.load(steps + 3 * step + 1)
        dx = tl.load(steps + 3 * step + 2)
        near = (pixel < pixels) & (pz + dz >= 0) & (pz + dz < depth)
        near = near & (py + dy >= 0) & (py + dy < height) & (px + dx >= 0) & (px + dx < width)
        place = pixel + ((dz * height + dy) * width + dx)
        at = maps + place[:, None] * channels + channel[None, :]
        there = near[:, None] & (channel < channels)[None, :]
        summed += tl.load(at, mask=there, other=0.0).to(tl.float32)
    return summed


@triton.jit
def _mix_bands(
    x, weight, bias, out, steps, starts, pixels, depth, height, width, channels, out_channels,
    bands, HAS_BIAS: tl.constexpr, PRECISION: tl.constexpr,
    PIXELS: tl.constexpr, CHANNELS: tl.constexpr, OUT: tl.constexpr,
):  # fmt: skip
    # 64 bits: a large batch has more values than 32 can count.
    pixel = tl.program_id(0).to(tl.int64) * PIXELS + tl.arange(0, PIXELS)
    column = tl.program_id(1) * OUT + tl.arange(0, OUT)
    total = tl.zeros((PIXELS, OUT), tl.float32)
    for band in range(bands):
        first, last = tl.load(starts + band), tl.load(starts + band + 1)
        for start in range(0, channels, CHANNELS):
            channel = start + tl.arange(0, CHANNELS)
            summed = _sum_band(
                x, steps, first, last, pixel, pixels, depth, height, width, channel, channels,
                PIXELS, CHANNELS,
            )  # fmt: skip
            at = weight + (band * channels + channel)[:, None] * out_channels + column[None, :]
            there = (channel < channels)[:, None] & (column < out_channels)[None, :]
            mixing = tl.load(at, mask=there, other=0.0)
            total = tl.dot(summed.to(mixing.dtype), mixing, total, input_precision=PRECISION)
    if HAS_BIAS:
        added = tl.load(bias + column, mask=column < out_channels, other=0.0)
        total += added[None, :].to(tl.float32)
    at = out + pixel[:, None] * out_channels + column[None, :]
    there = (pixel < pixels)[:, None] & (column < out_channels)[None, :]
    tl.store(at, total.to(out.dtype.element_ty), mask=there)


@triton.jit
def _mix_pixels(
    x, grad, parts, steps, starts, pixels, depth, height, width, channels, out_channels,
    bands, each, PRECISION: tl.constexpr, PIXELS: tl.constexpr, IN: tl.constexpr, OUT: tl.constexpr,
):  # fmt: skip
    band, tile, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    across = tl.cdiv(out_channels, OUT)
    channel = tile // across * IN + tl.arange(0, IN)
    column = tile % across * OUT + tl.arange(0, OUT)
    first, last = tl.load(starts + band), tl.load(starts + band + 1)
    total = tl.zeros((IN, OUT), tl.float32)
    begin = split.to(tl.int64) * each
    for start in range(0, each, PIXELS):
        pixel = begin + start + tl.arange(0, PIXELS)
        summed = _sum_band(
            grad, steps, first, last, pixel, pixels, depth, height, width, column, out_channels,
            PIXELS, OUT,
        )  # fmt: skip
        at = x + pixel[None, :] * channels + channel[:, None]
        there = (channel < channels)[:, None] & (pixel < pixels)[None, :]
        values = tl.load(at, mask=there, other=0.0)
        total = tl.dot(values, summed.to(values.dtype), total, input_precision=PRECISION)
    place = (split * bands + band).to(tl.int64) * channels
    at = parts + (place + channel)[:, None] * out_channels + column[None, :]
    there = (channel < channels)[:, None] & (column < out_channels)[None, :]
    tl.store(at, total, mask=there)
