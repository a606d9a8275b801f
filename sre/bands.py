"""Sums over concentric discs: the exact fast path of radially symmetric kernels.

A kernel that is constant on bands is a weighted sum of discs, ``W = sum_r (t_r - t_{r+1}) D_r``
with ``t_r`` the weight of band r and ``D_r`` the union of bands 0..r. Convolving with the 0/1
kernels ``D_r`` needs additions only, and few: row runs ``R_d`` (2d + 1 neighbours along x) grow by
two additions each, and a disc is a sum of row runs over its rows. What is left is one matrix
product over (bands x channels), against (k*k x channels) for the dense kernel.

A disc is point-symmetric, so that its sum is its own adjoint, and both gradients follow from the
disc sums of the incoming gradient g alone: ``dL/dx = sum_r D_r(g) w_r^T`` and
``dL/dw_r = x^T D_r(g)``.
"""

from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

SMALL_PIXELS = 64  # up to 8x8 one small matrix product beats the additions (launch costs dominate)
CHUNK_VALUES = 2**16  # images are taken a few at a time, so that their sums stay in the cache


@lru_cache(maxsize=64)
def band_index(kernel_size: int, circular: bool = True) -> np.ndarray:
    """Assign each kernel pixel its band, int (k, k); -1 where it belongs to none.

    Circular: ``k//2 + 1`` bands of equal width over radius ``k/2``, corners in none. Otherwise
    ``k//2 + 2`` bands of equal width up to the corner, which is a band of its own.

    Raises: ValueError: kernel_size is even or not positive, so the kernel has no centre pixel
    Reference: Du et al., SRE-Conv, https://arxiv.org/abs/2501.09753, and the authors' code
    """
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(
            f"kernel_size must be odd and positive, got {kernel_size}; try {abs(kernel_size) + 1}"
        )
    half = kernel_size // 2
    offset = np.arange(kernel_size) - half
    radius = np.hypot(offset[:, None], offset[None, :])
    if circular:
        edges = np.linspace(0.0, half + 0.5, half + 2)
    else:
        edges = np.append(np.linspace(0.0, radius.max(), half + 2), np.inf)
    index = np.searchsorted(edges, radius, side="right") - 1
    index[index > len(edges) - 2] = -1
    index.setflags(write=False)
    return index


@lru_cache(maxsize=64)
def disc_rows(kernel_size: int, circular: bool = True) -> tuple[tuple[int, ...], ...]:
    """Describe each disc by the half-widths of its rows at dy = 0, 1, ..., as far as it goes."""
    index, half = band_index(kernel_size, circular), kernel_size // 2
    discs = []
    for band in range(index.max() + 1):
        widths = ((index >= 0) & (index <= band)).sum(axis=1)[half:]
        discs.append(tuple(int(width) // 2 for width in widths if width))
    return tuple(discs)


def disc_conv(
    x: Float[Tensor, "B H W C"],
    disc_weight: Float[Tensor, "bands C O"],
    kernel_size: int,
    circular: bool,
) -> Float[Tensor, "B H W O"]:
    """Convolve with zero padding: sum over each disc around every pixel, then mix the channels.

    Differentiable once, in x and in the weights.
    """
    batch, height, width, channels = x.shape
    if 0 < height * width <= SMALL_PIXELS:
        matrix = _small_matrix(kernel_size, circular, height, width, x.dtype, x.device)
        sums = matrix @ x.reshape(batch, height * width, channels)
        sums = sums.view(batch, height * width, len(disc_weight) * channels)
        return (sums @ disc_weight.flatten(0, 1)).view(batch, height, width, disc_weight.shape[-1])
    return _DiscConv.apply(x, disc_weight, kernel_size, circular)


@lru_cache(maxsize=32)
def _small_matrix(
    kernel_size: int,
    circular: bool,
    height: int,
    width: int,
    dtype: torch.dtype,
    device: torch.device,
) -> Float[Tensor, "pixelsbands pixels"]:
    index, half = band_index(kernel_size, circular), kernel_size // 2
    y, x = np.divmod(np.arange(height * width), width)
    dy, dx = y[None] - y[:, None] + half, x[None] - x[:, None] + half
    near = (dy >= 0) & (dy < kernel_size) & (dx >= 0) & (dx < kernel_size)
    band = np.where(near, index[dy.clip(0, kernel_size - 1), dx.clip(0, kernel_size - 1)], -1)
    discs = [(band >= 0) & (band <= r) for r in range(index.max() + 1)]
    matrix = np.stack(discs, axis=1).reshape(-1, height * width)
    # A tensor made under inference_mode could not be saved for a backward pass later on.
    with torch.inference_mode(False):
        return torch.tensor(matrix, dtype=dtype, device=device)


class _DiscConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, disc_weight: Tensor, kernel_size: int, circular: bool) -> Tensor:
        ctx.save_for_backward(x, disc_weight)
        ctx.kernel = (disc_rows(kernel_size, circular), kernel_size // 2)
        out = x.new_empty(*x.shape[:3], disc_weight.shape[-1])
        for some in _chunks(x):
            flat = out[some].view(-1, out.shape[-1])
            for r, sums in enumerate(_disc_sums(x[some], *ctx.kernel)):
                flat.addmm_(sums.view(-1, x.shape[-1]), disc_weight[r], beta=0 if r == 0 else 1)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        x, disc_weight = ctx.saved_tensors
        grad = grad.contiguous()
        wants_x, wants_weight = ctx.needs_input_grad[:2]
        grad_x = torch.empty_like(x) if wants_x else None
        grad_weight = torch.zeros_like(disc_weight) if wants_weight else None
        for some in _chunks(grad):
            for r, sums in enumerate(_disc_sums(grad[some], *ctx.kernel)):
                flat = sums.view(-1, grad.shape[-1])
                if wants_x:
                    flat_x = grad_x[some].view(-1, x.shape[-1])
                    flat_x.addmm_(flat, disc_weight[r].t(), beta=0 if r == 0 else 1)
                if wants_weight:
                    grad_weight[r].addmm_(x[some].view(-1, x.shape[-1]).t(), flat)
        return grad_x, grad_weight, None, None


def _chunks(x: Tensor) -> list[slice]:
    size = max(1, CHUNK_VALUES // max(1, x[:1].numel()))
    return [slice(start, start + size) for start in range(0, len(x), size)]


def _disc_sums(
    x: Float[Tensor, "B H W C"], discs: tuple[tuple[int, ...], ...], half: int
) -> list[Float[Tensor, "B H W C"]]:
    height, width = x.shape[1:3]
    padded = F.pad(x, (0, 0, half, half, half, half))
    run = padded[:, :, half : half + width].contiguous()
    runs = [run]
    for d in range(1, half + 1):
        run = run + padded[:, :, half - d : half - d + width]
        run += padded[:, :, half + d : half + d + width]
        runs.append(run)
    sums = []
    for rows in discs:
        total = runs[rows[0]][:, half : half + height].clone(memory_format=torch.contiguous_format)
        for dy, w in enumerate(rows[1:], start=1):
            total += runs[w][:, half - dy : half - dy + height]
            total += runs[w][:, half + dy : half + dy + height]
        sums.append(total)
    return sums
