"""Products of spectra: the other exact way to convolve with radial kernels, for wide layers.

A kernel that is its own mirror image along both axes turns every wave into a multiple of itself:
``cos(w p)`` and ``sin(w p)`` into ``I(w)`` times themselves, along one axis with the spectrum
``I(w) = sum_d I[d] cos(w d)``. Along an axis of ``side`` pixels take ``n = side + k//2`` positions
(one more if that is odd) and the n waves of ``w_q = (2 q + 1) pi / n``, q = 0 ... n/2 - 1, which
change sign after n positions. They are orthogonal, so that an image, which is zero beyond its side,
is a sum of them; and what comes round the end reaches only positions that are not kept. Hence

    x  ->  X(w), its part in each wave  ->  Y(w) = sum_l I_l(w) X(w) w_l  ->  y, the waves' sum

is the convolution with zero padding and the weights w_l of the bands I_l. An image costs n^2
products of the channels, whatever k, against bands x side^2 of the sums in ``sre.bands``, and the
waves a matrix product along each axis, there and back. The four waves of one ``(w_y, w_x)``, cosine
or sine along either axis, share one matrix of channels, as the kernel's spectrum is real and even.

All of it is its own adjoint, but for the weights, which are transposed. So the gradient of x takes
the same steps, and that of the weights is ``dL/dw_l = sum_w I_l(w) X(w)^T G(w)``.

Reference: of convolutions whose sign changes where they wrap around, Nussbaumer, Fast Fourier
Transform and Convolution Algorithms, 1982
"""

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sre.bands import SMALL_PIXELS, BandConv, band_index, constant

CHUNK_VALUES = 2**21  # of spectra at once: so many images that products are large, and no more
MOST_WEIGHTS = 2**22  # of all matrices of channels: 16 MB


def prefers_spectra(
    shape: tuple[int, ...], out_channels: int, kernel_size: int, circular: bool = True
) -> bool:
    """Tell whether products of spectra are quicker than band sums for x of shape (B, H, W, C).

    Counts the multiply-adds of both, each kind with the weight that its time has: measured and
    held against the clock by bench/ways.py.

    >>> prefers_spectra((36, 32, 32, 64), 64, 9), prefers_spectra((1, 8, 8, 256), 256, 5)
    (True, False)
    """
    if len(shape) != 4 or 0 in shape or out_channels == 0:
        return False
    batch, height, width, channels = shape
    pixels, both = height * width, channels + out_channels
    ny, nx = _positions(height, kernel_size), _positions(width, kernel_size)
    matrices = ny * nx // 4 * channels * out_channels
    if matrices > MOST_WEIGHTS:
        return False
    reach = kernel_size // 2
    bands = reach + (1 if circular else 2)
    # Counted in multiply-adds of a large product, of which a tap of a sum takes 0.85, one along an
    # axis 1.4, and a number that goes through the memory 3.3 of a sum, 5 of a wave either way, and
    # 30 of a matrix of channels. Small maps have their sums from one product.
    if pixels <= SMALL_PIXELS:
        sums, calls = 0.7 * pixels * channels * bands * (out_channels + pixels), 1
    else:
        calls = bands
        taps = sum((2 * r + 1) ** 2 for r in range(1, reach + 1))
        sums = pixels * channels * (bands * (out_channels + 3.3) + 0.85 * taps)
    waves = both * ny * width * (height + nx)
    spectra = ny * nx * (channels * out_channels + 10 * both) + 1.4 * waves
    # And once for the whole batch: launches, and the matrices.
    return spectra + (30 * matrices + 12e6) / batch < sums + 4e6 * calls / batch


def spectral_conv(
    x: Float[Tensor, "B H W C"],
    weight: Float[Tensor, "bands C O"],
    bias: Float[Tensor, " O"] | None,
    kernel_size: int,
    circular: bool,
) -> Float[Tensor, "B H W O"]:
    """Convolve with zero padding, as `sre.bands.band_conv` does, by products of spectra.

    Differentiable once, in x, the weights and the bias.

    >>> from sre.bands import band_conv
    >>> x, weight = torch.randn(1, 20, 20, 8), torch.randn(3, 8, 4)  # 3 bands: 5 x 5
    >>> expected = band_conv(x, weight, None, kernel_size=5, circular=True)
    >>> torch.allclose(spectral_conv(x, weight, None, 5, True), expected, atol=1e-4)
    True
    """
    if torch.is_grad_enabled():
        return BandConv.apply(x, weight, bias, kernel_size, circular, _convolve, _gradients)
    return _convolve(x, weight, bias, kernel_size, circular)


class _Grid(NamedTuple):
    height: int
    width: int
    positions: tuple[int, int]

    @property
    def frequencies(self) -> int:
        """Pairs of a frequency along y and one along x, each of four waves."""
        return self.positions[0] * self.positions[1] // 4


def _positions(side: int, kernel_size: int) -> int:
    needed = side + kernel_size // 2
    return needed + needed % 2


def _grid(x: Tensor, kernel_size: int) -> _Grid:
    height, width = x.shape[1:3]
    return _Grid(height, width, (_positions(height, kernel_size), _positions(width, kernel_size)))


class _Workspace:
    """Memory that one chunk of images leaves to the next, which then needs no fresh pages."""

    def __init__(self, like: Tensor):
        self.like, self.taken = like, dict[str, Tensor]()

    def take(self, name: str, *shape: int) -> Tensor:
        size = math.prod(shape)
        if name not in self.taken or self.taken[name].numel() < size:
            self.taken[name] = self.like.new_empty(size)
        return self.taken[name][:size].view(shape)


def _convolve(
    x: Tensor, weight: Tensor, bias: Tensor | None, kernel_size: int, circular: bool
) -> Tensor:
    grid, work = _grid(x, kernel_size), _Workspace(x)
    matrices = _channel_matrices(weight, grid, kernel_size, circular)
    out = x.new_empty(*x.shape[:-1], weight.shape[-1])
    size = _images_at_once(grid, x)
    for some, found in zip(x.split(size), out.split(size), strict=True):
        waves = _to_waves(some, grid, work, "waves")
        product = work.take("product", len(matrices), 4 * len(some), weight.shape[-1])
        torch.bmm(waves, matrices, out=product)
        _from_waves(product, grid, work, found)
        if bias is not None:
            found.add_(bias)
    return out


def _gradients(
    x: Tensor,
    weight: Tensor,
    grad: Tensor,
    kernel_size: int,
    circular: bool,
    wants_x: bool,
    wants_weight: bool,
) -> tuple[Tensor | None, Tensor | None]:
    grid, work = _grid(x, kernel_size), _Workspace(x)
    grad_x = torch.empty_like(x) if wants_x else None
    matrices = _channel_matrices(weight, grid, kernel_size, circular) if wants_x else None
    of_matrices = None
    if wants_weight:
        of_matrices = x.new_zeros(grid.frequencies, *weight.shape[1:])
    size = _images_at_once(grid, x)
    parts = (tensor.split(size) for tensor in (grad, x, x if grad_x is None else grad_x))
    for some, of_x, found in zip(*parts, strict=True):
        waves = _to_waves(some, grid, work, "waves of the gradient")
        if of_matrices is not None:
            of_matrices.baddbmm_(_to_waves(of_x, grid, work, "waves").transpose(1, 2), waves)
        if matrices is not None:
            product = work.take("product", grid.frequencies, 4 * len(some), x.shape[-1])
            torch.bmm(waves, matrices.transpose(1, 2), out=product)
            _from_waves(product, grid, work, found)
    if of_matrices is None:
        return grad_x, None
    spectra = _band_spectra(kernel_size, circular, grid, x.dtype, x.device)
    return grad_x, (spectra.t() @ of_matrices.flatten(1)).view(weight.shape)


def _images_at_once(grid: _Grid, x: Tensor) -> int:
    return max(1, CHUNK_VALUES // (math.prod(grid.positions) * x.shape[-1]))


def _channel_matrices(
    weight: Tensor, grid: _Grid, kernel_size: int, circular: bool
) -> Float[Tensor, "frequencies C O"]:
    spectra = _band_spectra(kernel_size, circular, grid, weight.dtype, weight.device)
    # In rows of the spectrum, which the cores share among themselves as they do the products.
    rows = spectra.view(grid.positions[0] // 2, -1, len(weight))
    found = torch.bmm(rows, weight.flatten(1).expand(len(rows), -1, -1))
    return found.view(len(spectra), *weight.shape[1:])


def _to_waves(
    x: Float[Tensor, "B H W C"], grid: _Grid, work: _Workspace, name: str
) -> Float[Tensor, "frequencies images4 C"]:
    batch, height, width, channels = x.shape
    ny, nx = grid.positions
    along_y = _waves(height, ny, x.dtype, x.device).view(ny, height)
    rows = work.take("rows", batch, ny, width * channels)
    torch.bmm(along_y.expand(batch, -1, -1), x.reshape(batch, height, width * channels), out=rows)
    # Cosines and sines go where the images are, with which they share the matrix of channels.
    lines = rows.view(batch * ny, width, channels)
    waves = work.take(name, 2, batch * ny, nx // 2, channels)
    for kind, along_x in zip(waves, _waves(width, nx, x.dtype, x.device), strict=True):
        torch.bmm(along_x.expand(len(lines), -1, -1), lines, out=kind)
    return waves.view(4 * batch, grid.frequencies, channels).transpose(0, 1)


def _from_waves(
    waves: Float[Tensor, "frequencies images4 O"],
    grid: _Grid,
    work: _Workspace,
    out: Float[Tensor, "B H W O"],
) -> None:
    batch, height, width, channels = out.shape
    ny, nx = grid.positions
    along_x = _waves(width, nx, out.dtype, out.device).permute(2, 1, 0).reshape(width, nx)
    lines = work.take("rows", ny // 2, width, batch * 2 * channels)
    torch.bmm(
        along_x.expand(ny // 2, -1, -1), waves.view(ny // 2, nx, 2 * batch * channels), out=lines
    )
    rows = work.take("waves", batch, 2, ny // 2, width, channels)
    rows.copy_(lines.view(ny // 2, width, batch, 2, channels).permute(2, 3, 0, 1, 4))
    along_y = _waves(height, ny, out.dtype, out.device).view(ny, height).t()
    images = rows.view(batch, ny, width * channels)
    torch.bmm(along_y.expand(batch, -1, -1), images, out=out.view(batch, height, width * channels))


@lru_cache(maxsize=64)
def _waves(
    side: int, positions: int, dtype: torch.dtype, device: torch.device
) -> Float[Tensor, "2 frequencies side"]:
    # Of an orthonormal matrix the columns that the side needs: going back is its transpose.
    phase = np.outer(_frequencies(positions), np.arange(side))
    waves = math.sqrt(2 / positions) * np.stack([np.cos(phase), np.sin(phase)])
    return constant(waves, dtype, device)


@lru_cache(maxsize=64)
def _band_spectra(
    kernel_size: int, circular: bool, grid: _Grid, dtype: torch.dtype, device: torch.device
) -> Float[Tensor, "frequencies bands"]:
    index, steps = band_index(kernel_size, circular), np.arange(kernel_size) - kernel_size // 2
    along_y, along_x = (np.cos(np.outer(_frequencies(n), steps)) for n in grid.positions)
    spectra = [(along_y @ (index == band) @ along_x.T).ravel() for band in range(index.max() + 1)]
    return constant(np.stack(spectra, axis=1), dtype, device)


def _frequencies(positions: int) -> np.ndarray:
    return (2 * np.arange(positions // 2) + 1) * np.pi / positions
