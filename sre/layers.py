"""Equivariant layers: convolutions whose kernels look the same however they are turned."""

import importlib
import math
from functools import lru_cache
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.utils import _ntuple

from sre.bands import (
    CONVOLUTIONS,
    band_conv,
    band_index,
    can_sum,
    dense_kernel,
    traceable_band_conv,
)
from sre.spectra import prefers_spectra, spectral_conv

PADDING_MODES = ("zeros", "reflect", "replicate", "circular")
# Measured: for fewer channels the dense kernel is as fast. From 3 x 3 on the band sums win.
BAND_SUMS_MIN_KERNEL, BAND_SUMS_MIN_CHANNELS = 3, 8


def band_masks(
    kernel_size: int, *, circular: bool = True, dims: int = 2
) -> Float[Tensor, "bands *k"]:
    """Cut a kernel into concentric bands: one 0/1 mask a band, of as many axes as dims.

    Circular (the default, and the authors'): ``k//2 + 1`` bands, the corners belong to none.
    Otherwise ``k//2 + 2`` bands, the corners kept.

    Raises: ValueError: kernel_size is even, so the kernel has no centre pixel; or a kernel of one
            dimension is asked for its corners

    >>> band_masks(3).int().tolist()
    [[[0, 0, 0], [0, 1, 0], [0, 0, 0]], [[1, 1, 1], [1, 0, 1], [1, 1, 1]]]
    """
    index = torch.from_numpy(band_index(kernel_size, circular, dims).copy())
    return torch.stack([index == band for band in range(int(index.max()) + 1)]).float()


@lru_cache(maxsize=1)
def _fused_bands() -> Any:
    # Triton comes with PyTorch on Linux alone, and takes a while to import.
    try:
        return importlib.import_module("sre.triton_bands")
    except ImportError:
        return None


def _dtype_on_gpu(x: Tensor) -> torch.dtype:
    return torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else x.dtype


class RadialConv(nn.Module):
    """What the layers of every kind and dimension share; takes the arguments of nn.Conv2d.

    >>> issubclass(SREConv2d, RadialConv)
    True
    """

    dims: ClassVar[int]  # axes of the grid: 1, 2 or 3
    allows_spectra = True  # set to False, sums over bands are taken even where spectra are quicker

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, ...],
        stride: int | tuple[int, ...] = 1,
        padding: str | int | tuple[int, ...] = 0,
        dilation: int | tuple[int, ...] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        circular: bool = True,
        dense: bool = False,
    ):
        super().__init__()
        sides = self._each_axis(kernel_size)
        if len(set(sides)) > 1:
            raise ValueError(
                "kernel_size must be the same along all axes, got "
                f"{'x'.join(map(str, sides))}; try {max(sides)}"
            )
        masks = band_masks(sides[0], circular=circular, dims=self.dims)  # refuses even kernels
        if groups < 1 or in_channels % groups or out_channels % groups:
            raise ValueError(
                f"groups must divide in_channels and out_channels, got {groups} for "
                f"{in_channels} and {out_channels}; try 1"
            )
        if padding_mode not in PADDING_MODES:
            raise ValueError(
                f"unknown padding_mode {padding_mode!r}; choose from {', '.join(PADDING_MODES)}"
            )
        if isinstance(padding, str) and padding not in ("same", "valid"):
            raise ValueError(f"padding must be 'same', 'valid' or numbers, got {padding!r}")
        self.stride, self.dilation = self._each_axis(stride), self._each_axis(dilation)
        if padding == "same" and set(self.stride) != {1}:
            raise ValueError(
                f"padding='same' needs stride 1, got {stride}; "
                f"try padding={self.dilation[0] * (sides[0] // 2)}"
            )
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel_size, self.groups = sides, groups
        self.padding, self.padding_mode = padding, padding_mode
        self.circular, self.dense = circular, dense
        self._add_weight(len(masks), device=device, dtype=dtype)
        self.bias: nn.Parameter | None = None
        if bias:
            self.bias = nn.Parameter(torch.empty(out_channels, device=device, dtype=dtype))
        self.masks: Tensor
        self.register_buffer("masks", masks.to(device=device, dtype=dtype), persistent=False)
        self.reset_parameters()

    @classmethod
    def _each_axis(cls, value: int | tuple[int, ...]) -> tuple[int, ...]:
        values = _ntuple(cls.dims)(value)
        if len(values) != cls.dims:
            raise ValueError(
                f"{cls.__name__} has {cls.dims} axes, got {len(values)} numbers for them; "
                "give one number, or one for each"
            )
        return values

    def _add_weight(
        self, bands: int, *, device: torch.device | str | None, dtype: torch.dtype | None
    ) -> None:
        # Stored band by band, as the band sums' matrix products read it.
        rows, columns = self._weight_shape()
        stored = torch.empty(bands, columns, rows, device=device, dtype=dtype)
        self.weight = nn.Parameter(stored.permute(2, 1, 0))

    def _weight_shape(self) -> tuple[int, int]:
        return self.out_channels, self.in_channels // self.groups

    def reset_parameters(self) -> None:
        """Draw weights as nn.Conv2d does: uniform in ±1/sqrt(fan-in of the dense kernel)."""
        bound = 1 / math.sqrt(max(1, self.weight.shape[1]) * math.prod(self.kernel_size))
        nn.init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            nn.init.uniform_(self.bias, -bound, bound)

    @property
    def bands(self) -> int:
        """How many weights a kernel has."""
        return self.kernel_size[0] // 2 + (1 if self.circular else 2)

    @property
    def banded(self) -> Float[Tensor, "bands in_ch out_ch"]:
        """The weight of each band, in the order in which the matrix products read it."""
        return self.weight.permute(2, 1, 0).contiguous()  # no copy, unless someone made one

    @property
    def kernel(self) -> Float[Tensor, "out_ch in_ch *k"]:
        """The dense kernel, made anew from the weights each time, so that it is never stale."""
        return dense_kernel(self.banded, self.masks)

    @property
    def padding_px(self) -> tuple[int, ...]:
        """Pixels added on each side, one number an axis."""
        if not isinstance(self.padding, str):
            return self._each_axis(self.padding)
        if self.padding == "valid":
            return (0,) * self.dims
        return tuple(d * (k // 2) for d, k in zip(self.dilation, self.kernel_size, strict=True))

    def takes_band_sums(self, x: Tensor) -> bool:
        """Tell whether this input is convolved band by band, or with the dense kernel.

        On a CPU, in full precision, from 3 x 3 and 8 channels on: measured, bench/scaling.py; by
        sums over bands or products of their spectra, whichever ``sre.spectra`` counts less for. On
        a GPU where the kernels in Triton, timed against cuDNN when such an input first comes, win.
        """
        if self.dense or not self._can_sum(x):
            return False
        if x.device.type == "cuda":
            return self._wins_on_gpu(x)
        return (
            x.device.type == "cpu"
            and x.dtype == self.weight.dtype
            and x.dtype in (torch.float32, torch.float64)
            and not torch.is_autocast_enabled("cpu")
            and can_sum(x)
        )

    def _can_sum(self, x: Tensor) -> bool:
        return (
            x.dim() == self.dims + 2
            and self.kernel_size[0] >= BAND_SUMS_MIN_KERNEL
            and self.in_channels >= BAND_SUMS_MIN_CHANNELS
            and set(self.stride) == set(self.dilation) == {1}
            and self.groups == 1
            and self.padding_mode == "zeros"
            and self.padding_px == tuple(k // 2 for k in self.kernel_size)
        )

    def _wins_on_gpu(self, x: Tensor) -> bool:
        if torch.compiler.is_compiling() or torch.jit.is_tracing():
            return False
        if torch.are_deterministic_algorithms_enabled():
            return False  # what is chosen by timing may be another way in another run
        fused, dtype = _fused_bands(), _dtype_on_gpu(x)
        is_light = torch.float64 not in (x.dtype, self.weight.dtype)  # autocast leaves these alone
        if fused is None or dtype not in fused.DTYPES or not is_light:
            return False
        if not torch.is_autocast_enabled("cuda") and self.weight.dtype != dtype:
            return False
        layer = fused.Layer(
            shape=tuple(x.shape),
            is_channels_last=x.movedim(1, -1).is_contiguous(),
            out_channels=self.out_channels,
            kernel_size=self.kernel_size[0],
            circular=self.circular,
            dtype=dtype,
            device=x.device,
            trains=torch.is_grad_enabled() and (x.requires_grad or self.weight.requires_grad),
        )
        return fused.is_faster(layer)

    def forward(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        if self.takes_band_sums(x):
            return self._sum_bands(x)
        padding = self.padding_px
        if self.padding_mode != "zeros":
            both_sides = [px for px in reversed(padding) for _ in range(2)]
            x, padding = F.pad(x, both_sides, mode=self.padding_mode), (0,) * self.dims
        convolve = CONVOLUTIONS[self.dims]
        return convolve(x, self.kernel, self.bias, self.stride, padding, self.dilation, self.groups)

    def _sum_bands(self, x: Tensor) -> Tensor:
        if torch.compiler.is_compiling() or torch.jit.is_tracing():
            return traceable_band_conv(x, self.banded, self.bias, self.masks, self.circular)
        bias: Tensor | None = self.bias
        weight, convolve = self.banded, band_conv
        size, side = (len(x), *x.shape[2:], x.shape[1]), self.kernel_size[0]
        if x.device.type == "cuda":
            dtype, convolve = _dtype_on_gpu(x), _fused_bands().fused_band_conv
            x, weight = x.to(dtype), weight.to(dtype)
            bias = None if bias is None else bias.to(dtype)
        elif self.allows_spectra and prefers_spectra(size, self.out_channels, side, self.circular):
            convolve = spectral_conv
        y = convolve(x.movedim(1, -1).contiguous(), weight, bias, side, self.circular)
        return y.movedim(-1, 1)

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size[0]}, "
            f"bands={self.bands}, stride={self.stride}, padding={self.padding!r}"
        )


class SREConv1d(RadialConv):
    """Convolve signals with kernels that are their own mirror image; else as nn.Conv1d.

    In one dimension there are no rotations: the symmetry is the mirror, with which the layer
    commutes exactly where ``(n + 2 * padding - dilation * (kernel_size - 1) - 1) % stride == 0``.

    Shape: (B, in_channels, n) -> (B, out_channels, n'), as nn.Conv1d
    Attributes: weight (out_channels, in_channels / groups, bands); kernel, the dense one
    Raises: ValueError: kernel_size is even, or a setting that nn.Conv1d refuses
    Reference: Du et al., SRE-Conv, https://arxiv.org/abs/2501.09753, section 2

    >>> layer, x = SREConv1d(2, 3, kernel_size=5, padding="same"), torch.randn(1, 2, 20)
    >>> torch.allclose(layer(x.flip(-1)), layer(x).flip(-1), atol=1e-6)
    True
    """

    dims = 1


class SREConv2d(RadialConv):
    """Convolve with radially symmetric kernels, one learned weight a band; else as nn.Conv2d.

    Commutes with the eight symmetries of the pixel grid, exactly where the sampling is symmetric,
    ``(h + 2 * padding - dilation * (kernel_size - 1) - 1) % stride == 0`` and likewise for w;
    approximately with the angles in between. Computes by sums over bands or by products of spectra
    where these are exact and faster (see ``sre.bands``, ``sre.spectra`` and ``sre.triton_bands``),
    and can then be differentiated once; ``dense=True`` always takes the dense kernel.

    Shape: (B, in_channels, h, w) -> (B, out_channels, h', w'), as nn.Conv2d
    Attributes: weight (out_channels, in_channels / groups, bands); kernel, the dense one
    Raises: ValueError: kernel_size is even or not square, or a setting that nn.Conv2d refuses
    Reference: Du et al., SRE-Conv, https://arxiv.org/abs/2501.09753, section 2

    >>> layer, x = SREConv2d(2, 3, kernel_size=9, padding="same"), torch.randn(1, 2, 28, 28)
    >>> layer.weight.shape  # 5 bands for 81 pixels
    torch.Size([3, 2, 5])
    >>> torch.allclose(layer(x.rot90(1, (-2, -1))), layer(x).rot90(1, (-2, -1)), atol=1e-5)
    True
    """

    dims = 2


class SREConv3d(RadialConv):
    """Convolve volumes with kernels of concentric shells, one weight a shell; else as nn.Conv3d.

    Commutes with the 48 symmetries of the voxel grid, exactly where the sampling is symmetric along
    all axes, as for SREConv2d; approximately with the angles in between. Computes by sums
    over balls where that is faster, on a CPU in single precision.

    Shape: (B, in_channels, d, h, w) -> (B, out_channels, d', h', w'), as nn.Conv3d
    Attributes: weight (out_channels, in_channels / groups, bands); kernel, the dense one
    Raises: ValueError: kernel_size is even or not cubic, or a setting that nn.Conv3d refuses
    Reference: Du et al., SRE-Conv, https://arxiv.org/abs/2501.09753, section 2

    >>> layer, x = SREConv3d(1, 2, kernel_size=5, padding="same"), torch.randn(1, 1, 12, 12, 12)
    >>> torch.allclose(layer(x.rot90(1, (-3, -1))), layer(x).rot90(1, (-3, -1)), atol=1e-5)
    True
    """

    dims = 3
