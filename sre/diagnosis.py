"""Why a layer does not commute with quarter turns and mirrors: guessed from what it is.

No numbers are computed here but of weights: each check looks at the settings of a module and at the
shapes that it was given, and gives a cause in words where it finds one.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from sre.layers import RadialConv
from sre.symmetry import GRID_ACTIONS, VOLUME_ACTIONS
from sre.transposed import RadialConvTranspose

UNKNOWN = "reason unknown"
_DENSE = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_TRANSPOSED = (nn.ConvTranspose2d, nn.ConvTranspose3d, RadialConvTranspose)
_POOLS = (
    nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool2d, nn.AvgPool3d, nn.LPPool2d, nn.LPPool3d
)  # fmt: skip
_TRADERS = (nn.PixelShuffle, nn.PixelUnshuffle, nn.Fold, nn.Unfold)
_SYMMETRIES: Mapping[int, Sequence[Callable[[Tensor], Tensor]]] = MappingProxyType(
    {2: GRID_ACTIONS, 3: VOLUME_ACTIONS}
)


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a module: what it was given and made for the upright image.

    >>> Call(nn.ReLU(), (), (1, 3, 8, 8), (1, 3, 8, 8), (), input_breaks=False).made
    (1, 3, 8, 8)
    """

    module: nn.Module
    around: tuple[tuple[str, nn.Module], ...]  # the modules that hold it, innermost first
    given: tuple[int, ...]  # shape of its first tensor; empty where it has none
    made: tuple[int, ...]  # shape of its output
    before: tuple[int, ...]  # shape of the output before this one; empty for the first
    input_breaks: bool  # its input is not the turned one any more when the image turns


def guess_reason(call: Call) -> str:
    """Say in words why this call is the first to break the symmetry.

    >>> pool = nn.AvgPool2d(2)
    >>> guess_reason(Call(pool, (), (1, 8, 7, 7), (1, 8, 3, 3), (), input_breaks=False))
    'windows of 2 with stride 2 do not divide side 7 evenly (sides 6 and 8 fit)'
    """
    found = list(_before(call) if call.input_breaks else _within(call))
    return "; ".join(found) or _shape(call) or UNKNOWN


def _before(call: Call) -> Iterator[str]:
    # All layers up to here are exact, so that something in between breaks: it is no module.
    pixels = math.prod(call.before[2:])
    if len(call.given) == 2 and pixels > 1 and math.prod(call.before[1:]) == call.given[1]:
        yield "flattened position: each pixel has become a feature of its own"
        return
    for name, module in call.around:
        found = list(_absolute(module, call.given, f" of {name}" if name else " of the network"))
        if found:
            yield from found
            return
    yield "its input is broken already, by an operation before it that is no layer"


def _within(call: Call) -> Iterator[str]:
    module = call.module
    kernel = _kernel_of(module)
    if kernel is not None:
        yield from _kernel(kernel)
    if kernel is None and not isinstance(module, nn.Linear):
        yield from _absolute(module, call.made, "")
    yield from _sampling(module, call.given)
    yield from _padding(module)
    yield from _positions(module, call)


def _shape(call: Call) -> str:
    """Look at less telling signs, where there is no clear one."""
    if len(set(call.given[2:])) == 1 < len(set(call.made[2:])):
        return f"it makes maps of {_by(call.made[2:])} out of maps of {_by(call.given[2:])}"
    if any(True for _ in call.module.children()):
        return "an operation in its own forward, outside the layers in it"
    return ""


def _by(sides: Sequence[int]) -> str:
    return "x".join(map(str, sides))


def _kernel_of(module: nn.Module) -> Tensor | None:
    if isinstance(module, RadialConv):
        return module.kernel.detach()
    return module.weight.detach() if isinstance(module, _DENSE) else None


def _kernel(kernel: Tensor) -> Iterator[str]:
    sides = kernel.shape[2:]
    name = _by(sides)
    if len(set(sides)) > 1:
        yield f"its {name} kernels are not the same along all axes"
    elif not is_symmetric(kernel):
        even = ", and an even kernel has no centre pixel" if sides[0] % 2 == 0 else ""
        yield f"its ordinary {name} kernels are not radially symmetric{even}"


def is_symmetric(values: Tensor) -> bool:
    """Tell whether numbers (..., H, W) or (..., D, H, W) of equal sides look alike however turned.

    Shape: 4 axes: the last two are space; 5 axes: the last three

    >>> is_symmetric(torch.ones(1, 1, 3, 3)), is_symmetric(torch.ones(1, 1, 3, 3).cumsum(-1))
    (True, False)
    """
    largest = float(values.abs().amax()) if values.numel() else 0.0
    alike = (
        torch.allclose(action(values), values, rtol=0.0, atol=1e-5 * largest)
        for action in _SYMMETRIES[values.dim() - 2]
    )
    return len(set(values.shape[2:])) == 1 and all(alike)


def _absolute(module: nn.Module, shape: tuple[int, ...], owner: str) -> Iterator[str]:
    # A learned or fixed number for each place of the map, such as a position embedding.
    sides = shape[2:]
    own = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
    if math.prod(sides) == 1 or len(sides) not in _SYMMETRIES:
        return
    for name, value in own:
        if value.shape[-len(sides) :] != sides or value.dim() > len(sides) + 2:
            continue
        if not is_symmetric(value.detach().float().reshape(1, -1, *sides)):
            yield f"absolute position: {name!r}{owner} has the map's sides {_by(sides)}"


def _sampling(module: Any, given: tuple[int, ...]) -> Iterator[str]:
    """Check whether windows or strides reach as far on one side as on the other."""
    dims = len(given) - 2
    is_sampler = isinstance(module, (*_DENSE, RadialConv, *_POOLS))
    if not is_sampler or isinstance(module, _TRANSPOSED) or dims not in _SYMMETRIES:
        return
    settings = {
        "kernel": _axes(module.kernel_size, dims),
        "stride": _axes(getattr(module, "stride", None) or module.kernel_size, dims),
        "dilation": _axes(getattr(module, "dilation", 1), dims),
    }
    padding = getattr(module, "padding", 0)
    reach = [d * (k - 1) for k, d in zip(settings["kernel"], settings["dilation"], strict=True)]
    if padding == "same":
        if any(r % 2 for r in reach):
            yield "an even kernel has no centre pixel: padding='same' adds one more on one side"
        return
    settings["padding"] = _axes(0 if padding == "valid" else padding, dims)
    for name, values in settings.items():
        # Uneven kernels of convolutions have been named already.
        if len(set(values)) > 1 and (name != "kernel" or isinstance(module, _POOLS)):
            yield f"its {name} {_by(values)} is not the same along all axes"
            return
    stride, pad = settings["stride"][0], settings["padding"][0]
    for side, r in zip(given[2:], reach, strict=True):
        left = (side + 2 * pad - r - 1) % stride
        if left:
            yield _off_centre(module, settings["kernel"][0], stride, side, left)
            return


def _off_centre(module: nn.Module, kernel: int, stride: int, side: int, left: int) -> str:
    fits = f"(sides {side - left} and {side - left + stride} fit)"
    if not isinstance(module, _POOLS):
        return f"stride {stride} samples side {side} off centre {fits}"
    return f"windows of {kernel} with stride {stride} do not divide side {side} evenly {fits}"


def _axes(value: int | tuple[int, ...], dims: int) -> tuple[int, ...]:
    return (value,) * dims if isinstance(value, int) else tuple(value)


def _padding(module: Any) -> Iterator[str]:
    if isinstance(module, _TRANSPOSED) and any(_axes(module.output_padding, 1)):
        yield "output_padding adds pixels on one side only"
    padding = getattr(module, "padding", None)
    if isinstance(padding, tuple) and not hasattr(module, "kernel_size") and len(set(padding)) > 1:
        yield f"padding {padding} is not the same on all sides"


def _positions(module: nn.Module, call: Call) -> Iterator[str]:
    """Check for layers that treat positions as something else."""
    given, made = call.given[2:], call.made[2:]
    if isinstance(module, nn.Flatten) and math.prod(given) > 1:
        yield "flattened position: each pixel becomes a feature of its own"
    if isinstance(module, nn.Linear) and len(given) > 0:
        yield "it mixes the positions along the last axis"
    if isinstance(module, _TRADERS):
        yield "it trades positions for channels"
    if isinstance(module, nn.RNNBase):
        yield "it reads positions one after the other"
    uneven = any(after % before for before, after in zip(given, made, strict=False))
    if isinstance(module, nn.Upsample) and module.mode.startswith("nearest") and uneven:
        yield f"nearest-neighbour upsampling from side {given[0]} to {made[0]} rounds to one side"
