"""Equivariant layers: convolutions whose kernels look the same however they are turned."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.utils import _pair

from sre.bands import band_conv, band_index, traceable_band_conv

PADDING_MODES = ("zeros", "reflect", "replicate", "circular")
# Measured: for fewer channels the dense kernel is as fast. From 3 x 3 on the band sums win.
BAND_SUMS_MIN_KERNEL, BAND_SUMS_MIN_CHANNELS = 3, 8


def band_masks(kernel_size: int, *, circular: bool = True) -> Float[Tensor, "bands k k"]:
    """Cut a kernel into concentric bands: one 0/1 mask a band.

    Circular (the default, and the authors'): ``k//2 + 1`` bands, the corners belong to none.
    Otherwise ``k//2 + 2`` bands, the corners kept.

    Raises: ValueError: kernel_size is even, so the kernel has no centre pixel
    """
    index = torch.from_numpy(band_index(kernel_size, circular).copy())
    return torch.stack([index == band for band in range(int(index.max()) + 1)]).float()


class SREConv2d(nn.Module):
    """Convolve with radially symmetric kernels, one learned weight a band; else as nn.Conv2d.

    Commutes with the eight symmetries of the pixel grid, exactly where the sampling is symmetric,
    ``(h + 2 * padding - dilation * (kernel_size - 1) - 1) % stride == 0`` and likewise for w;
    approximately with the angles in between. Computes by sums over bands on a CPU where these
    are exact and faster (see ``sre.bands``); ``dense=True`` always takes the dense kernel.

    Shape: (B, in_channels, h, w) -> (B, out_channels, h', w'), as nn.Conv2d
    Attributes: weight (out_channels, in_channels / groups, bands); kernel, the dense one
    Raises: ValueError: kernel_size is even or not square, or a setting that nn.Conv2d refuses
    Reference: Du et al., SRE-Conv, https://arxiv.org/abs/2501.09753, section 2
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: str | int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
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
        sides = _pair(kernel_size)
        if sides[0] != sides[1]:
            raise ValueError(
                f"kernel_size must be square, got {sides[0]}x{sides[1]}; try {max(sides)}"
            )
        masks = band_masks(sides[0], circular=circular)  # refuses even kernels
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
        self.stride, self.dilation = _pair(stride), _pair(dilation)
        if padding == "same" and self.stride != (1, 1):
            raise ValueError(
                f"padding='same' needs stride 1, got {stride}; "
                f"try padding={self.dilation[0] * (sides[0] // 2)}"
            )
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel_size, self.groups = sides, groups
        self.padding, self.padding_mode = padding, padding_mode
        self.circular, self.dense = circular, dense
        empty = {"device": device, "dtype": dtype}
        # Stored band by band, as the band sums' matrix products read it.
        stored = torch.empty(len(masks), in_channels // groups, out_channels, **empty)
        self.weight = nn.Parameter(stored.permute(2, 1, 0))
        self.bias = nn.Parameter(torch.empty(out_channels, **empty)) if bias else None
        self.register_buffer("masks", masks.to(**empty), persistent=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weights as nn.Conv2d does: uniform in ±1/sqrt(fan-in of the dense kernel)."""
        bound = 1 / math.sqrt(max(1, self.weight.shape[1]) * self.kernel_size[0] ** 2)
        nn.init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            nn.init.uniform_(self.bias, -bound, bound)

    @property
    def kernel(self) -> Float[Tensor, "out_ch in_ch k k"]:
        """The dense kernel, made anew from the weights each time, so that it is never stale."""
        return torch.einsum("oib,bhw->oihw", self.weight, self.masks)

    @property
    def padding_px(self) -> tuple[int, int]:
        """Rows and columns added on each side."""
        if self.padding == "valid":
            return (0, 0)
        if self.padding == "same":
            return tuple(d * (k // 2) for d, k in zip(self.dilation, self.kernel_size, strict=True))
        return _pair(self.padding)

    def takes_band_sums(self, x: Tensor) -> bool:
        """Tell whether this input is convolved by sums over bands, or with the dense kernel."""
        return (
            not self.dense
            and x.device.type == "cpu"
            and x.dtype == self.weight.dtype
            and x.dtype in (torch.float32, torch.float64)
            and not torch.is_autocast_enabled("cpu")
            and x.dim() == 4
            and self.kernel_size[0] >= BAND_SUMS_MIN_KERNEL
            and self.in_channels >= BAND_SUMS_MIN_CHANNELS
            and self.stride == self.dilation == (1, 1)
            and self.groups == 1
            and self.padding_mode == "zeros"
            and self.padding_px == (self.kernel_size[0] // 2, self.kernel_size[0] // 2)
        )

    def forward(self, x: Float[Tensor, "*B in_ch h w"]) -> Float[Tensor, "*B out_ch h2 w2"]:
        if self.takes_band_sums(x):
            weight = self.weight.permute(2, 1, 0).contiguous()  # no copy, unless someone made one
            if torch.compiler.is_compiling() or torch.jit.is_tracing():
                return traceable_band_conv(x, weight, self.bias, self.masks, self.circular)
            x = x.permute(0, 2, 3, 1).contiguous()
            y = band_conv(x, weight, self.bias, self.kernel_size[0], self.circular)
            return y.permute(0, 3, 1, 2)
        if self.padding_mode == "zeros":
            return F.conv2d(
                x, self.kernel, self.bias, self.stride, self.padding_px, self.dilation, self.groups
            )
        rows, columns = self.padding_px
        padded = F.pad(x, (columns, columns, rows, rows), mode=self.padding_mode)
        return F.conv2d(padded, self.kernel, self.bias, self.stride, 0, self.dilation, self.groups)

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size[0]}, "
            f"bands={self.weight.shape[-1]}, stride={self.stride}, padding={self.padding!r}"
        )
