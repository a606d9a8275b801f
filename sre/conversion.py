"""Convert any CNN: its kernels become radial, its strides pools that commute with turns."""

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.utils import _ntuple

from sre.bands import band_index
from sre.invariance import (
    TOLERANCE,
    first_break,
    flattened_sides,
    found_examples,
    invariance_error,
)
from sre.layers import RadialConv
from sre.obstacles import is_plain, objection
from sre.pooling import OrbitMean, SidePool, Taking, ceiled_side, strided_side
from sre.projection import (
    Conv,
    ConvTranspose,
    IrreplaceableError,
    Replacement,
    of_most_axes,
    radial,
    radial_transposed,
    unstrided,
)
from sre.transposed import RadialConvTranspose

MaxPool = nn.MaxPool1d | nn.MaxPool2d | nn.MaxPool3d
AvgPool = nn.AvgPool1d | nn.AvgPool2d | nn.AvgPool3d
Pool = MaxPool | AvgPool


@dataclass(frozen=True, slots=True)
class ChangedLayer:
    """What became of one layer.

    Attributes: energy_kept: ``||new kernel||^2 / ||kernel||^2``, both dense; None where no kernel
        changed

    >>> _, report = convert(nn.Sequential(nn.Conv2d(1, 1, 1), nn.AvgPool2d(2)))
    >>> report.changed[0].before, report.changed[0].energy_kept
    ('AvgPool2d 2x2, stride 2', None)
    """

    name: str
    before: str
    after: str
    how: str
    energy_kept: float | None


@dataclass(frozen=True, slots=True)
class KeptLayer:
    """A layer that stayed as it is though it may not commute with turns, and why.

    >>> _, report = convert(nn.Sequential(nn.Conv2d(3, 4, 3), nn.PixelShuffle(2)))
    >>> report.kept[0].kind, report.kept[0].why
    ('PixelShuffle', 'it lays channels out as places, which a turn would have to swap')
    """

    name: str
    kind: str
    why: str


@dataclass(frozen=True, slots=True)
class ConversionReport:
    """What was changed, what could not be, and how exact the result is; str() gives a table.

    Attributes: error: largest change of the answers over the quarter turns of the examples, in
        single precision, relative to the largest; None if there were none. breaks_at: where
        maps cease to turn with them, if they do. examples: their shapes

    >>> _, report = convert(nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1)))
    >>> report.is_exact, report.breaks_at, [layer.name for layer in report.changed]
    (True, None, ['0'])
    """

    changed: tuple[ChangedLayer, ...]
    kept: tuple[KeptLayer, ...]
    error: float | None
    breaks_at: str | None
    examples: tuple[tuple[int, ...], ...]

    @property
    def is_exact(self) -> bool:
        """Tell whether all maps were seen to turn with the examples, and the answers to stay."""
        return self.error is not None and self.error < TOLERANCE and not self.breaks_at

    def __str__(self) -> str:
        rows: list[tuple[str, ...]] = [("layer", "was", "is", "energy kept", "how")]
        for layer in self.changed:
            share = "" if layer.energy_kept is None else f"{layer.energy_kept:.1%}"
            rows.append((layer.name, layer.before, layer.after, share, layer.how))
        lines = [*_aligned(rows), "", self._measured()]
        if self.kept:
            lines += ["", "Left as they are, though they may depend on direction or place:"]
            lines += _aligned([(layer.name, layer.kind, layer.why) for layer in self.kept])
        return "\n".join(lines)

    def _measured(self) -> str:
        if self.error is None:
            return "Not measured: no input could be guessed; give an example."
        shapes = " and ".join(map(_times, self.examples))
        where = f" Maps cease to turn at {self.breaks_at}." if self.breaks_at else ""
        return (
            f"Over the quarter turns of {shapes} inputs the answers change by {self.error:.1e} "
            f"of the largest.{where}"
        )


def convert(
    model: nn.Module,
    kernel_size: int | None = None,
    *,
    example: Float[Tensor, "B C *space"] | None = None,
) -> tuple[nn.Module, ConversionReport]:
    """Give a copy of a CNN that does not mind quarter turns and mirrors, and say what changed.

    Kernels are averaged over bands; strides become means, and strided pools adaptive ones, to
    the side that they left, so that branches fit wherever they did; linear layers over a flattened
    map get it averaged over the symmetries of its grid. All of these are exact at every side.
    Modules that are shared stay so; kernels that several modules share do not. The accuracy of
    trained weights is not kept: train the copy on.

    Args: kernel_size: side of all new kernels; by default each keeps its own, the largest of its
            sides. example: images to measure on; by default noise, of sides that the model takes
    Returns: the copy, and the report: energy kept by layer, what was left, the error measured
    Raises: ValueError: kernel_size is even, or the model has no convolution
    Reference: Du et al., SRE-Conv, https://arxiv.org/abs/2501.09753, section 2

    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.Conv2d(8, 4, 5))
    >>> net = nn.Sequential(net, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    >>> converted, report = convert(net)
    >>> report.is_exact, [layer.after for layer in report.changed]
    (True, ['SidePool, SREConv2d 3x3', 'SREConv2d 5x5'])
    >>> x = torch.randn(1, 3, 33, 33)
    >>> torch.allclose(converted(x.rot90(1, (-2, -1))), converted(x), atol=1e-5)
    True
    """
    if kernel_size is not None:
        band_index(kernel_size)  # refuses even ones
    if not any(isinstance(module, _ConvNd | RadialConv) for module in model.modules()):
        raise ValueError(
            f"{type(model).__name__} has no convolution; give a model with layers such as nn.Conv2d"
        )
    twin = copy.deepcopy(model)
    examples = found_examples(twin) if example is None else [example]
    twin, changed, kept = _replace(twin, kernel_size)
    if examples:
        changed += _average_flattened(twin, examples[0])
    single = _in_single(twin)
    kept += [
        KeptLayer(name or "the model", type(module).__name__, why)
        for name, module in twin.named_modules()
        if (why := objection(module))
    ]
    return twin, ConversionReport(
        changed=tuple(changed),
        kept=tuple(kept),
        error=max((invariance_error(single, x.cpu().float()) for x in examples), default=None),
        breaks_at=first_break(single, examples),
        examples=tuple(tuple(x.shape) for x in examples),
    )


def _in_single(model: nn.Module) -> nn.Module:
    # What is promised is promised there; graphics cards round the factors of convolutions.
    if all(p.dtype == torch.float32 and p.device.type == "cpu" for p in model.parameters()):
        return model
    return copy.deepcopy(model).cpu().float()


def _replace(
    model: nn.Module, kernel_size: int | None
) -> tuple[nn.Module, list[ChangedLayer], list[KeptLayer]]:
    changed, kept, new = [], [], {}
    for name, module in model.named_modules():  # once each, however often one is shared
        try:
            replacement = _replacement(module, kernel_size)
        except IrreplaceableError as reason:
            kept.append(KeptLayer(name or "the model", _described(module), str(reason)))
            continue
        if replacement is not None:
            new[module] = replacement.module.train(module.training)
            changed.append(_changed(name, module, replacement))
    for parent in list(model.modules()):
        # Not named_children, which gives a module once where a parent has it under two names.
        for name, child in list(parent._modules.items()):
            if child in new:
                setattr(parent, name, new[child])
    return new.get(model, model), changed, kept


def _replacement(module: nn.Module, kernel_size: int | None) -> Replacement | None:
    if isinstance(module, RadialConv) and not isinstance(module, RadialConvTranspose):
        return None if set(module.stride) == {1} else unstrided(module)
    if not is_plain(module):  # what a forward of its own does is not known
        return None
    if isinstance(module, ConvTranspose):
        return radial_transposed(module, kernel_size)
    if isinstance(module, Conv) and max(module.kernel_size) > 1:
        return radial(module, kernel_size)
    if isinstance(module, Conv):
        return None if set(module.stride) == {1} else unstrided(module)
    if isinstance(module, Pool):
        return _pool(module)
    return None


def _pool(pool: Pool) -> Replacement | None:
    """Give an adaptive pool for a strided one; of maxima for maxima.

    Where windows do not overlap and fill the side, as in most networks at most sides, that is the
    same pool. Windows that did overlap are made larger by one of stride 1 before it, of an odd
    window, so that the two together reach as far, or a pixel less.
    """
    dims = _dims(pool)
    each = _ntuple(dims)
    sizes, strides = each(pool.kernel_size), each(pool.stride)
    paddings, dilations = each(pool.padding), each(getattr(pool, "dilation", 1))
    axes = list(zip(sizes, strides, paddings, dilations, strict=True))
    if getattr(pool, "return_indices", False):
        raise IrreplaceableError("its indices are asked for, which point at pixels")
    if set(strides) == {1} and len(set(axes)) == 1:
        return None
    size, stride, padding, dilation = of_most_axes(axes, "windows and strides")
    if stride == 1:
        raise IrreplaceableError(f"its windows differ along the axes: {sizes}")
    if dilation > 1 or getattr(pool, "divisor_override", None):
        raise IrreplaceableError("a strided pool with dilation or a divisor of its own")
    shrinks = size - 1 - 2 * padding
    side = partial(strided_side, stride=stride, shrinks=shrinks)
    if pool.ceil_mode:
        side = partial(ceiled_side, stride=stride, shrinks=shrinks, padding=padding)
    taking: Taking = "maximum" if isinstance(pool, MaxPool) else "mean"
    module: nn.Module = SidePool(side, dims=dims, taking=taking)
    overlap = size - stride + 1
    window = max(1, overlap - 1 + overlap % 2)
    if window > 1:
        wide = copy.deepcopy(pool)
        wide.kernel_size, wide.stride, wide.padding = window, 1, window // 2
        module = nn.Sequential(wide, module)
    return Replacement(module, f"stride {stride} became an adaptive {taking}")


def _average_flattened(model: nn.Module, example: Tensor) -> list[ChangedLayer]:
    # In place; these are never the whole model, as it has a convolution.
    dims, changed = example.dim() - 2, []
    sides = flattened_sides(_in_single(model), example.cpu().float())
    for name, side in sides.items():
        linear, mean = model.get_submodule(name), OrbitMean(side, dims=dims)
        assert isinstance(linear, nn.Linear)
        weight = linear.weight.detach()
        replacement = Replacement(
            nn.Sequential(mean, linear).train(linear.training),
            f"the {_times((side,) * dims)} map it reads is averaged over the grid's symmetries, "
            "as if the weights were",
            float(mean(weight).norm() / weight.norm()) ** 2,
        )
        model.set_submodule(name, replacement.module)
        changed.append(_changed(name, linear, replacement))
    return changed


def _changed(name: str, module: nn.Module, replacement: Replacement) -> ChangedLayer:
    return ChangedLayer(
        name or "the model",
        _described(module),
        _described(replacement.module),
        replacement.how,
        replacement.energy_kept,
    )


def _described(module: nn.Module) -> str:
    if isinstance(module, nn.Sequential):
        return ", ".join(_described(part) for part in module)
    text = type(module).__name__
    if isinstance(module, nn.Linear):
        return f"{text} {module.in_features} to {module.out_features}"
    if isinstance(module, Conv | ConvTranspose | RadialConv | Pool):
        each = _ntuple(_dims(module))
        text, strides = f"{text} {_times(each(module.kernel_size))}", each(module.stride)
        if set(strides) != {1}:
            text += f", stride {strides[0] if len(set(strides)) == 1 else _times(strides)}"
    return text


def _dims(module: Conv | ConvTranspose | RadialConv | Pool) -> int:
    if isinstance(module, Pool):
        kinds = (nn.MaxPool1d | nn.AvgPool1d, nn.MaxPool2d | nn.AvgPool2d)
        return next((dims for dims, kind in enumerate(kinds, 1) if isinstance(module, kind)), 3)
    return len(module.kernel_size)


def _times(sides: Iterable[int]) -> str:
    return "x".join(map(str, sides))


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
