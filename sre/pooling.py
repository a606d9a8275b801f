"""Pools that commute with quarter turns and mirrors at every side, odd or even.

An adaptive pool's window i of n runs from ``floor(i side / n)`` to ``ceil((i + 1) side / n)``,
so that window n - 1 - i is its mirror image. Windows of a fixed size that advance by a stride
are symmetric only at sides where the last one ends at the edge.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sre.symmetry import GRID_ACTIONS, VOLUME_ACTIONS

Taking = Literal["mean", "maximum"]
Action = Callable[[Tensor], Tensor]
Pool = Callable[..., Tensor]

_POOLS: Mapping[tuple[Taking, int], tuple[Pool, Pool]] = MappingProxyType(
    {
        ("mean", 1): (F.avg_pool1d, F.adaptive_avg_pool1d),
        ("mean", 2): (F.avg_pool2d, F.adaptive_avg_pool2d),
        ("mean", 3): (F.avg_pool3d, F.adaptive_avg_pool3d),
        ("maximum", 1): (F.max_pool1d, F.adaptive_max_pool1d),
        ("maximum", 2): (F.max_pool2d, F.adaptive_max_pool2d),
        ("maximum", 3): (F.max_pool3d, F.adaptive_max_pool3d),
    }
)
# Of a grid of as many axes. A flip along no axis is the identity.
SYMMETRIES: Mapping[int, Sequence[Action]] = MappingProxyType(
    {
        1: (partial(torch.flip, dims=()), partial(torch.flip, dims=(-1,))),
        2: GRID_ACTIONS,
        3: VOLUME_ACTIONS,
    }
)


def strided_side(side: int, *, stride: int, shrinks: int) -> int:
    """Give the side that a convolution or pool leaves.

    Args: shrinks: pixels lost at stride 1, ``dilation * (kernel_size - 1) - 2 * padding``

    >>> strided_side(224, stride=2, shrinks=0), strided_side(33, stride=4, shrinks=3)
    (112, 8)
    """
    return (side - 1 - shrinks) // stride + 1


def ceiled_side(side: int, *, stride: int, shrinks: int, padding: int) -> int:
    """Give the side that a pool with ``ceil_mode`` leaves: a last window may be cut off."""
    ceiled = -(-(side - 1 - shrinks) // stride)
    # PyTorch drops a window that would start in the padding behind the image.
    return min(ceiled, (side + padding - 1) // stride) + 1


def grown_side(side: int, *, stride: int, grows: int) -> int:
    """Give the side that a transposed convolution leaves; of one pixel it makes ``1 + grows``."""
    return (side - 1) * stride + 1 + grows


class SidePool(nn.Module):
    """Pool every axis to the side that a function gives for it, at least 1; exact at every side.

    Where the side grows pixels are repeated, or averaged with their neighbours.

    Shape: (..., n) -> (..., side(n)), likewise for as many axes as dims

    >>> pool, x = SidePool(lambda side: side // 2, dims=2), torch.randn(1, 2, 7, 9)
    >>> pool(x).shape
    torch.Size([1, 2, 3, 4])
    >>> torch.allclose(pool(x.rot90(1, (-2, -1))), pool(x).rot90(1, (-2, -1)), atol=1e-6)
    True
    """

    def __init__(self, side: Callable[[int], int], *, dims: int, taking: Taking = "mean"):
        super().__init__()
        self.side, self.dims, self.taking = side, dims, taking

    def forward(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        given = x.shape[-self.dims :]
        wanted = [max(1, self.side(side)) for side in given]
        if list(given) == wanted:
            return x
        fixed, adaptive = _POOLS[self.taking, self.dims]
        if all(old % new == 0 for old, new in zip(given, wanted, strict=True)):
            windows = [old // new for old, new in zip(given, wanted, strict=True)]
            return fixed(x, windows)  # the same windows, several times faster
        return adaptive(x, wanted)

    def extra_repr(self) -> str:
        return f"dims={self.dims}, taking={self.taking!r}"


class OrbitMean(nn.Module):
    """Average a flattened square or cubic map over the symmetries of its grid: 2, 8 or 48.

    A linear layer behind it answers as one whose weights were averaged over the symmetries, the
    nearest one that is invariant; and it stays invariant when it is trained on.

    Shape: (B, C * side ** dims) -> the same

    >>> linear, x = torch.nn.Linear(2 * 9, 4), torch.randn(1, 2, 3, 3)
    >>> head = torch.nn.Sequential(torch.nn.Flatten(), OrbitMean(3, dims=2), linear)
    >>> torch.allclose(head(x.rot90(1, (-2, -1))), head(x), atol=1e-6)
    True
    """

    def __init__(self, side: int, *, dims: int):
        super().__init__()
        self.side, self.dims = side, dims

    def forward(self, x: Float[Tensor, "B F"]) -> Float[Tensor, "B F"]:
        maps = x.unflatten(1, (-1, *(self.side,) * self.dims))
        actions = SYMMETRIES[self.dims]
        return torch.stack([action(maps) for action in actions]).mean(0).flatten(1)

    def extra_repr(self) -> str:
        return f"{self.side}, dims={self.dims}"
