"""Sums over concentric bands: the exact fast path of radially symmetric kernels, flat or solid.

A kernel that is constant on bands is ``W[o, i] = sum_l w[o, i, l] I_l`` with ``I_l`` the 0/1 kernel
of band l. Convolution is linear in its kernel, hence ``W * x = sum_l w_l (I_l * x)``: sum up each
band around every pixel, channel by channel and by additions only, then mix the channels in a
matrix product over (bands x channels), against (k*k x channels) for the dense kernel. With
``k//2 + 1`` bands the products grow with k and not with its square.

A band is point-symmetric, so that its sum is its own adjoint, and both gradients follow from the
band sums of the incoming gradient g alone: ``dL/dx = sum_l I_l(g) w_l^T`` and
``dL/dw_l = x^T I_l(g)``. So training keeps no sums, and the way back runs the same code.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

SMALL_PIXELS = (
    64  # up to 8x8 or 4x4x4 one small matrix product beats the sums (launch costs dominate)
)
CHUNK_VALUES = 2**20  # images are taken a few at a time, so that their sums stay in the cache
# Measured, 512 channels, 16 pixels: where few pixels meet weights that a core's cache cannot hold,
# products by halves of the output channels, one a thread, take 0.7 of the time of one product.
FEW_PIXELS, MANY_WEIGHTS = 48, 2**18
_HAS_ONEDNN = ("AVX2", "AVX512")
CONVOLUTIONS = MappingProxyType({1: F.conv1d, 2: F.conv2d, 3: F.conv3d})


@lru_cache(maxsize=64)
def band_index(kernel_size: int, circular: bool = True, dims: int = 2) -> np.ndarray:
    """Assign each kernel pixel its band, int (k, k), as many axes as dims; -1 where it has none.

    Circular: ``k//2 + 1`` bands of equal width over radius ``k/2``, corners in none. Otherwise
    ``k//2 + 2`` bands of equal width up to the corner, which is a band of its own.

    Raises: ValueError: kernel_size is even or not positive, so the kernel has no centre pixel; or
            corners are asked for in one dimension
    Reference: Du et al., SRE-Conv, https://arxiv.org/abs/2501.09753, and the authors' code

    >>> band_index(5).tolist()[0]  # a row of the outer edge: the corners are left out
    [-1, 2, 2, 2, -1]
    """
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(
            f"kernel_size must be odd and positive, got {kernel_size}; try {abs(kernel_size) + 1}"
        )
    if dims == 1 and not circular:
        raise ValueError("a kernel of one dimension has no corners; leave circular=True")
    half = kernel_size // 2
    offsets = np.ogrid[(slice(-half, half + 1),) * dims]
    radius = np.sqrt(sum(offset**2 for offset in offsets))
    if circular:
        edges = np.linspace(0.0, half + 0.5, half + 2)
    else:
        edges = np.append(np.linspace(0.0, radius.max(), half + 2), np.inf)
    index = np.searchsorted(edges, radius, side="right") - 1
    index[index > len(edges) - 2] = -1
    index.setflags(write=False)
    return index


def dense_kernel(
    weight: Float[Tensor, "bands C O"], masks: Float[Tensor, "bands *k"]
) -> Float[Tensor, "O C *k"]:
    """Give all pixels of a band its weight: the kernel that an ordinary convolution takes.

    One product of matrices, each column of which picks one band: nothing is rounded.

    >>> masks = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 1.0]])
    >>> dense_kernel(torch.tensor([[[5.0]], [[2.0]]]), masks)
    tensor([[[2., 5., 2.]]])
    """
    spread = torch.mm(weight.flatten(1).t(), masks.flatten(1))
    return spread.view(*weight.shape[1:], *masks.shape[1:]).transpose(0, 1)


def band_conv(
    x: Float[Tensor, "B *space C"],
    weight: Float[Tensor, "bands C O"],
    bias: Float[Tensor, " O"] | None,
    kernel_size: int,
    circular: bool,
) -> Float[Tensor, "B *space O"]:
    """Convolve with zero padding: sum over each band around every pixel, then mix the channels.

    Differentiable once, in x, the weights and the bias.

    >>> x, weight = torch.randn(1, 20, 20, 8), torch.randn(3, 8, 4)  # 3 bands: 5 x 5
    >>> y = band_conv(x, weight, None, kernel_size=5, circular=True)
    >>> y.shape
    torch.Size([1, 20, 20, 4])
    """
    convolve, gradients = _convolve, _gradients
    if 0 < math.prod(x.shape[1:-1]) <= SMALL_PIXELS:
        convolve, gradients = _convolve_small, _small_gradients
    if torch.is_grad_enabled():
        return BandConv.apply(x, weight, bias, kernel_size, circular, convolve, gradients)
    return convolve(x, weight, bias, kernel_size, circular)


def traceable_band_conv(
    x: Float[Tensor, "B C *space"],
    weight: Float[Tensor, "bands C O"],
    bias: Float[Tensor, " O"] | None,
    masks: Float[Tensor, "bands *_"],
    circular: bool,
) -> Float[Tensor, "B O *space"]:
    """The same of PyTorch's own operators alone, which any compiler, exporter or runtime knows.

    It keeps the sums of all bands at once, for which training pays in memory.

    >>> from sre.layers import band_masks
    >>> x, weight = torch.randn(1, 8, 20, 20), torch.randn(3, 8, 4)
    >>> traceable_band_conv(x, weight, None, band_masks(5), circular=True).shape
    torch.Size([1, 4, 20, 20])
    """
    channels, half, dims = x.shape[1], masks.shape[-1] // 2, x.dim() - 2
    convolve, sums = CONVOLUTIONS[dims], []
    for band, mask in enumerate(masks):
        # No band reaches further, by its definition.
        reach = min(half, band if circular else int(math.sqrt(dims) * (band + 1)))
        near = (slice(half - reach, half + reach + 1),) * dims
        kernel = mask[near].expand(channels, 1, *mask[near].shape)
        # Axis by axis: a tracer of PyTorch 2.8 loses a single number that it took from a shape.
        sums.append(convolve(x, kernel, padding=(reach,) * dims, groups=channels))
    mixing = weight.flatten(0, 1).t()
    return convolve(torch.cat(sums, 1), mixing.view(*mixing.shape, *(1,) * dims), bias)


def _convolve(
    x: Tensor, weight: Tensor, bias: Tensor | None, kernel_size: int, circular: bool
) -> Tensor:
    out = x.new_empty(*x.shape[:-1], weight.shape[-1])
    each = weight.unbind()
    for some, found in _in_chunks(x, out):
        # A product a band, added up where it stands: cheaper than first joining the sums.
        for band, of_band in enumerate(_band_sums(some, kernel_size, circular)):
            _add_mixed(found, of_band, each[band], band, bias)
    return out


class BandConv(torch.autograd.Function):
    """A convolution by band sums with its gradients, whatever takes the sums.

    Args, after those of `band_conv`: convolve, which takes these; gradients, which takes x, weight,
        the incoming gradient, kernel_size, circular and whether each is wanted, and gives those
        of x and weight

    >>> x, weight = torch.randn(1, 20, 20, 8), torch.randn(3, 8, 4, requires_grad=True)
    >>> BandConv.apply(x, weight, None, 5, True, _convolve, _gradients).requires_grad
    True
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        kernel_size: int,
        circular: bool,
        convolve: Callable[..., Tensor],
        gradients: Callable[..., tuple[Tensor | None, Tensor | None]],
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.kernel, ctx.gradients = (kernel_size, circular), gradients
        return convolve(x, weight, bias, kernel_size, circular)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        grad = grad.contiguous()
        wants_x, wants_weight, wants_bias = ctx.needs_input_grad[:3]
        found: tuple[Tensor | None, Tensor | None] = (None, None)
        if wants_x or wants_weight:
            found = ctx.gradients(*ctx.saved_tensors, grad, *ctx.kernel, wants_x, wants_weight)
        grad_bias = grad.flatten(0, -2).sum(0) if wants_bias else None
        return *found, grad_bias, None, None, None, None


def _gradients(
    x: Tensor,
    weight: Tensor,
    grad: Tensor,
    kernel_size: int,
    circular: bool,
    wants_x: bool,
    wants_weight: bool,
) -> tuple[Tensor | None, Tensor | None]:
    grad_x = torch.empty_like(x) if wants_x else None
    grad_weight = torch.zeros_like(weight) if wants_weight else None
    each = weight.transpose(1, 2).unbind()
    for some, of_x, found in _in_chunks(grad, x, x if grad_x is None else grad_x):
        pixels = of_x.reshape(-1, of_x.shape[-1]).t()
        for band, of_band in enumerate(_band_sums(some, kernel_size, circular)):
            if grad_x is not None:
                _add_mixed(found, of_band, each[band], band)
            if grad_weight is not None:
                grad_weight[band].addmm_(pixels, of_band.reshape(-1, of_band.shape[-1]))
    return grad_x, grad_weight


def _add_mixed(
    out: Float[Tensor, "B *space O"],
    of_band: Float[Tensor, "B *space C"],
    weight: Float[Tensor, "C O"],
    band: int,
    bias: Float[Tensor, " O"] | None = None,
) -> None:
    flat, pixels = out.view(-1, out.shape[-1]), of_band.reshape(-1, of_band.shape[-1])
    flat.addmm_(pixels, weight, beta=min(band, 1))
    if band == 0 and bias is not None:
        flat.add_(bias)  # addmm would first fill the result with it, which takes longer


def _in_chunks(x: Tensor, *others: Tensor) -> Iterable[tuple[Tensor, ...]]:
    # As few views as can be: a small batch waits for Python, not for numbers.
    size = max(1, CHUNK_VALUES // max(1, x[:1].numel()))
    if len(x) <= size:
        return [(x, *others)] if len(x) else []
    return zip(*(tensor.split(size) for tensor in (x, *others)), strict=True)


def _band_sums(
    x: Float[Tensor, "B *space C"], kernel_size: int, circular: bool
) -> Iterable[Float[Tensor, "B *space C"]]:
    take = _depthwise_sums if _convolves_depthwise(x) else _added_sums
    return take(x, kernel_size, circular)


def can_sum(x: Float[Tensor, "B C *space"]) -> bool:
    """Tell whether there is a fast way to the sums over bands, of discs or of balls.

    >>> can_sum(torch.zeros(1, 8, 28, 28)), can_sum(torch.zeros(1, 8, 28))
    (True, False)
    """
    return x.dim() == 4 or (x.dim() == 5 and _convolves_depthwise(x))


def _convolves_depthwise(x: Tensor) -> bool:
    # oneDNN keeps a whole band in registers: measured 2 to 4 times as fast as additions, which go
    # through memory. It knows single precision on x86 processors; elsewhere PyTorch would loop
    # over the channels.
    if x.device.type != "cpu":
        return True
    return x.dtype == torch.float32 and torch.backends.cpu.get_cpu_capability() in _HAS_ONEDNN


def _depthwise_sums(x: Tensor, kernel_size: int, circular: bool) -> Iterator[Tensor]:
    # One at a time: no more than one is in the memory, and it is mixed while it is in the cache.
    maps, channels, dims = x.movedim(-1, 1), x.shape[-1], x.dim() - 2
    for kernel in _depthwise_kernels(kernel_size, circular, dims, channels, x.dtype, x.device):
        reach = kernel.shape[-1] // 2
        if reach:
            yield CONVOLUTIONS[dims](maps, kernel, padding=reach, groups=channels).movedim(1, -1)
        else:
            yield x


@lru_cache(maxsize=64)
def _depthwise_kernels(
    kernel_size: int,
    circular: bool,
    dims: int,
    channels: int,
    dtype: torch.dtype,
    device: torch.device,
) -> tuple[Float[Tensor, "C 1 *_"], ...]:
    # Each no larger than it need be; the first is nearly always the centre alone.
    index, half = band_index(kernel_size, circular, dims), kernel_size // 2
    kernels = []
    for band in range(index.max() + 1):
        reach = int(np.abs(np.argwhere(index == band) - half).max())
        near = (slice(half - reach, half + reach + 1),) * dims
        mask = constant(index[near] == band, dtype, device)
        kernels.append(mask.repeat(channels, 1, *(1,) * dims))
    return tuple(kernels)


def _convolve_small(
    x: Tensor, weight: Tensor, bias: Tensor | None, kernel_size: int, circular: bool
) -> Tensor:
    sums, mixing = _small_sums(x, kernel_size, circular).flatten(0, -2), weight.flatten(0, 1)
    # Not what a product gives, but viewed: autograd lets nobody write into a view made in here.
    out = x.new_empty(*x.shape[:-1], mixing.shape[1])
    flat = out.view(-1, mixing.shape[1])
    if len(sums) > FEW_PIXELS or mixing.numel() < MANY_WEIGHTS or mixing.shape[1] % 2:
        torch.mm(sums, mixing, out=flat)
    else:
        halves = mixing.unflatten(1, (2, -1)).transpose(0, 1)
        mixed = torch.bmm(sums.expand(2, -1, -1), halves)
        flat.view(-1, *halves.shape[::2]).copy_(mixed.transpose(0, 1))
    return out if bias is None else out.add_(bias)


def _small_gradients(
    x: Tensor,
    weight: Tensor,
    grad: Tensor,
    kernel_size: int,
    circular: bool,
    wants_x: bool,
    wants_weight: bool,
) -> tuple[Tensor | None, Tensor | None]:
    grad_x, grad_weight = None, None
    sums = _small_sums(grad, kernel_size, circular).flatten(0, -2)  # (pixels, bands of channels)
    if wants_x:
        grad_x = (sums @ weight.transpose(1, 2).flatten(0, 1)).view(x.shape)
    if wants_weight:
        by_band = x.flatten(0, -2).t() @ sums
        grad_weight = by_band.unflatten(1, (len(weight), -1)).transpose(0, 1)
    return grad_x, grad_weight


def _small_sums(
    x: Float[Tensor, "B *space C"], kernel_size: int, circular: bool
) -> Float[Tensor, "B *space bandsC"]:
    batch, *space, channels = x.shape
    matrix = _small_matrix(kernel_size, circular, tuple(space), x.dtype, x.device)
    sums = matrix @ x.reshape(batch, math.prod(space), channels)
    return sums.view(batch, *space, len(matrix) // math.prod(space) * channels)


@lru_cache(maxsize=32)
def _small_matrix(
    kernel_size: int,
    circular: bool,
    space: tuple[int, ...],
    dtype: torch.dtype,
    device: torch.device,
) -> Float[Tensor, "pixelsbands pixels"]:
    # Row (pixel, band), column (pixel): is the one in that band around the other?
    index = band_index(kernel_size, circular, len(space))
    place = np.indices(space).reshape(len(space), -1)
    step = place[:, None] - place[:, :, None] + kernel_size // 2  # (axis, row, column)
    near = ((step >= 0) & (step < kernel_size)).all(0)
    band = np.where(near, index[tuple(step.clip(0, kernel_size - 1))], -1)
    matrix = np.stack([band == each for each in range(index.max() + 1)], axis=1)
    return constant(matrix.reshape(-1, math.prod(space)), dtype, device)


def constant(values: np.ndarray, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Make a tensor that may be kept: under inference_mode too, one that a backward pass can save.

    >>> constant(np.eye(2), torch.float32, torch.device("cpu")).is_inference()
    False
    """
    with torch.inference_mode(False):
        return torch.tensor(values, dtype=dtype, device=device)


def _added_sums(x: Tensor, kernel_size: int, circular: bool) -> list[Tensor]:
    # Row runs R_d (2d + 1 neighbours along x) grow by two additions each; a disc, the union of
    # the first bands, is a sum of row runs over its rows; a band is a disc less the one inside.
    half = kernel_size // 2
    height, width = x.shape[1:3]
    padded = F.pad(x, (0, 0, half, half, half, half))
    run = padded[:, :, half : half + width].contiguous()
    runs = [run]
    for d in range(1, half + 1):
        run = run + padded[:, :, half - d : half - d + width]
        run += padded[:, :, half + d : half + d + width]
        runs.append(run)
    discs = []
    for rows in disc_rows(kernel_size, circular):
        total = runs[rows[0]][:, half : half + height].clone(memory_format=torch.contiguous_format)
        for dy, w in enumerate(rows[1:], start=1):
            total += runs[w][:, half - dy : half - dy + height]
            total += runs[w][:, half + dy : half + dy + height]
        discs.append(total)
    for outer, inner in zip(discs[:0:-1], discs[-2::-1], strict=True):
        outer -= inner
    return discs


@lru_cache(maxsize=64)
def disc_rows(kernel_size: int, circular: bool = True) -> tuple[tuple[int, ...], ...]:
    """Describe each disc by the half-widths of its rows at dy = 0, 1, ..., as far as it goes.

    >>> disc_rows(5)  # the largest disc: rows of 5, 5 and 3 pixels from the middle outwards
    ((0,), (1, 1), (2, 2, 1))
    """
    index, half = band_index(kernel_size, circular), kernel_size // 2
    discs = []
    for band in range(index.max() + 1):
        widths = ((index >= 0) & (index <= band)).sum(axis=1)[half:]
        discs.append(tuple(int(width) // 2 for width in widths if width))
    return tuple(discs)
