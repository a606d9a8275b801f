"""Transposed convolutions with radially symmetric kernels: upsampling that commutes with turns."""

from types import MappingProxyType

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sre.layers import RadialConv

_CONVOLUTIONS = MappingProxyType(
    {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
)


class RadialConvTranspose(RadialConv):
    """What the transposed layers share; takes the arguments of nn.ConvTranspose2d.

    >>> issubclass(SREConvTranspose2d, RadialConv)
    True
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, ...],
        stride: int | tuple[int, ...] = 1,
        padding: str | int | tuple[int, ...] = 0,  # no word is taken, and each gets a sentence
        output_padding: int | tuple[int, ...] = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: int | tuple[int, ...] = 1,
        padding_mode: str = "zeros",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        circular: bool = True,
    ):
        if padding_mode != "zeros":
            raise ValueError(
                f"a transposed convolution pads with zeros only, got {padding_mode!r}; "
                "leave padding_mode='zeros'"
            )
        if isinstance(padding, str):
            raise ValueError(
                f"the padding of a transposed convolution must be numbers, got {padding!r}; "
                "give how many pixels are taken off each side"
            )
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias,
            device=device, dtype=dtype, circular=circular, dense=True,
        )  # fmt: skip
        self.output_padding = self._each_axis(output_padding)

    def _weight_shape(self) -> tuple[int, int]:
        return self.in_channels, self.out_channels // self.groups

    def forward(
        self, x: Float[Tensor, "..."], output_size: list[int] | None = None
    ) -> Float[Tensor, "..."]:
        """Convolve; output_size, of the spatial axes, stands for output_padding if given.

        Raises: ValueError: the stride cannot lead to that size
        """
        added = self.output_padding if output_size is None else self._added(x, output_size)
        convolve = _CONVOLUTIONS[self.dims]
        return convolve(
            x, self.kernel, self.bias, self.stride, self.padding_px, added, self.groups,
            self.dilation,
        )  # fmt: skip

    def _added(self, x: Tensor, output_size: list[int]) -> tuple[int, ...]:
        smallest = [
            (n - 1) * s - 2 * p + d * (k - 1) + 1
            for n, s, p, d, k in zip(
                x.shape[-self.dims :], self.stride, self.padding_px, self.dilation,
                self.kernel_size, strict=True,
            )
        ]  # fmt: skip
        wanted = list(output_size)[-self.dims :]
        added = tuple(w - n for w, n in zip(wanted, smallest, strict=True))
        if any(not 0 <= a < s for a, s in zip(added, self.stride, strict=True)):
            largest = [n + s - 1 for n, s in zip(smallest, self.stride, strict=True)]
            raise ValueError(
                f"output_size must lie between {smallest} and {largest}, got {wanted}; "
                "change it, the stride or the padding"
            )
        return added


class SREConvTranspose1d(RadialConvTranspose):
    """Upsample signals with mirror-symmetric kernels; else as nn.ConvTranspose1d.

    Commutes with the mirror exactly if ``output_padding`` is 0.

    Shape: (B, in_channels, n) -> (B, out_channels, n'), as nn.ConvTranspose1d
    Attributes: weight (in_channels, out_channels / groups, bands); kernel, the dense one
    Raises: ValueError: kernel_size is even, or a setting that nn.ConvTranspose1d refuses
    Reference: Du et al., SRE-Conv, https://arxiv.org/abs/2501.09753, section 2

    >>> layer = SREConvTranspose1d(2, 3, kernel_size=3, stride=2, padding=1)
    >>> layer(torch.randn(1, 2, 10)).shape
    torch.Size([1, 3, 19])
    """

    dims = 1


class SREConvTranspose2d(RadialConvTranspose):
    """Upsample with radially symmetric kernels; else as nn.ConvTranspose2d.

    Commutes with quarter turns and mirrors exactly, for every stride, if ``output_padding`` is 0:
    what is added on one side only has a direction.

    Shape: (B, in_channels, h, w) -> (B, out_channels, h', w'), as nn.ConvTranspose2d
    Attributes: weight (in_channels, out_channels / groups, bands); kernel, the dense one
    Raises: ValueError: kernel_size is even or not square, or a setting that nn.ConvTranspose2d
            refuses
    Reference: Du et al., SRE-Conv, https://arxiv.org/abs/2501.09753, section 2

    >>> layer, x = SREConvTranspose2d(2, 3, 5, stride=2, padding=2), torch.randn(1, 2, 14, 14)
    >>> torch.allclose(layer(x.rot90(1, (-2, -1))), layer(x).rot90(1, (-2, -1)), atol=1e-6)
    True
    """

    dims = 2


class SREConvTranspose3d(RadialConvTranspose):
    """Upsample volumes with kernels of concentric shells; else as nn.ConvTranspose3d.

    Commutes with the 48 symmetries of the voxel grid exactly if ``output_padding`` is 0.

    Shape: (B, in_channels, d, h, w) -> (B, out_channels, d', h', w'), as nn.ConvTranspose3d
    Attributes: weight (in_channels, out_channels / groups, bands); kernel, the dense one
    Raises: ValueError: kernel_size is even or not cubic, or a setting that nn.ConvTranspose3d
            refuses
    Reference: Du et al., SRE-Conv, https://arxiv.org/abs/2501.09753, section 2

    >>> layer = SREConvTranspose3d(2, 1, kernel_size=3, stride=2, padding=1)
    >>> layer(torch.randn(1, 2, 6, 6, 6)).shape
    torch.Size([1, 1, 11, 11, 11])
    """

    dims = 3
