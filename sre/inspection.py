"""Which layers of a network turn and mirror with its input, and which is the first that does not.

The network runs on an input and on each turned input; layer by layer, what comes out for the turned
one is compared with the turned output for the upright one. At quarter turns and mirrors pixels
only move, so that the whole maps must agree to rounding. At other angles everything is masked by
the inscribed disc (or ball), and interpolation has its share, which the floor shows.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sre.comparison import Action, Layout, interpolation_floor, likely_layouts, output_error
from sre.diagnosis import Call, guess_reason
from sre.layers import RadialConv
from sre.listening import evaluating, listening, named_tensors
from sre.report import EquivarianceReport, LayerCheck
from sre.symmetry import GRID_ACTIONS, VOLUME_ACTIONS, disc_mask, rotate, rotate_volume

TOLERANCE = 1e-4  # of single precision: exact networks show 1e-6, broken layers 1e-2 and more
_TURNS: Mapping[int, tuple[Action, ...]] = MappingProxyType(
    {
        2: tuple(a for a in GRID_ACTIONS if a.quarter_turns and not a.mirror),
        # One about each axis: together they make up all 24 rotations.
        3: tuple(partial(rotate_volume, angle_deg=90.0, axis=axis) for axis in range(3)),
    }
)
_MIRRORS: Mapping[int, tuple[Action, ...]] = MappingProxyType(
    {
        2: tuple(a for a in GRID_ACTIONS if a.mirror),
        3: tuple(a for a in VOLUME_ACTIONS if a.axes == (0, 1, 2) and sum(a.mirrored) == 1),
    }
)


def example_input(
    *, in_channels: int, side: int, dims: int = 2, batch: int = 1, seed: int = 0
) -> Float[Tensor, "B C *space"]:
    """Draw smooth images (dims=2) or volumes (3): random waves of at most three periods a side.

    White noise would do for quarter turns, but at other angles it tells of interpolation alone.

    >>> example_input(in_channels=3, side=28).shape
    torch.Size([1, 3, 28, 28])
    """
    periods = torch.arange(min(3, max(1, side // 8)) + 1)
    phase = periods[:, None] * (2 * math.pi / side) * torch.arange(side)
    waves = torch.cat([phase.cos(), phase.sin()])  # (waves, side)
    shape = (batch, in_channels, *(len(waves),) * dims)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    for _ in range(dims):
        x = torch.tensordot(x, waves, dims=([2], [0]))  # takes the axis away, adds it at the end
    loudness = x.flatten(2).square().mean(2).sqrt()  # of each channel
    return x / loudness[(..., *(None,) * dims)]


def check_equivariance(
    model: nn.Module,
    x: Float[Tensor, "B C *space"] | None = None,
    *,
    side: int = 28,
    angles_deg: Sequence[float] = (30.0, 45.0),
    tolerance: float = TOLERANCE,
) -> EquivarianceReport:
    """Measure the equivariance error of every layer, and find the first that breaks the symmetry.

    For any network of images or volumes. It runs in eval mode, without gradients, and is left as it
    was. Feature maps are taken to turn as images do, channel by channel, and may have their
    channels last; outputs without spatial axes are taken to be invariant. Listens by hooks, so
    that no other thread may use the model meanwhile.

    Shape: x (B, C, H, W) or (B, C, D, H, W); by default ``example_input`` of that side, for the
        channels and dimensions of the first convolution
    Args: tolerance: largest error at quarter turns and mirrors that counts as rounding; raise it
        for models in half precision
    Raises: ValueError: x is of another shape, or there is no convolution to tell it from; an angle
        is not finite; besides, whatever the model raises

    >>> from sre.layers import SREConv2d
    >>> model = nn.Sequential(SREConv2d(1, 4, 5, padding=2), nn.ReLU(), nn.AvgPool2d(2))
    >>> check_equivariance(model, side=12).is_exact
    True
    >>> check_equivariance(model, side=13).first_broken.reason
    'windows of 2 with stride 2 do not divide side 13 evenly (sides 12 and 14 fit)'
    """
    x = _input_for(model, side) if x is None else x
    angles, dims = tuple(float(angle) for angle in angles_deg), x.dim() - 2
    if dims not in _TURNS or 0 in x.shape:
        raise ValueError(
            f"x must be images (B, C, H, W) or volumes (B, C, D, H, W), got {tuple(x.shape)}; "
            "add or drop axes"
        )
    if not all(math.isfinite(angle) for angle in angles):
        raise ValueError(f"angles must be finite numbers of degrees, got {angles}; try 30 and 45")
    with evaluating(model):
        rows = _check_exact(model, x, tolerance)
        if angles:
            rows = _check_angles(model, x, rows, angles)
    return EquivarianceReport(tuple(rows.values()), angles, tuple(x.shape), tolerance)


@dataclass(frozen=True, slots=True)
class _Output:
    call: str  # name of the module, with its number from the second call on
    path: str  # name of the module
    module: nn.Module
    value: Tensor


@dataclass(frozen=True, slots=True)
class _Upright:
    """A network, an input, and all that comes of it; outputs and their layouts by name."""

    model: nn.Module
    x: Tensor
    outputs: Mapping[str, _Output]
    layouts: Mapping[str, Layout]


def _check_exact(model: nn.Module, x: Tensor, tolerance: float) -> dict[str, LayerCheck]:
    """Measure quarter turns and mirrors, and say of the first layer that breaks why it does."""
    upright, turns, mirrors = _run_upright(model, x), _TURNS[x.dim() - 2], _MIRRORS[x.dim() - 2]
    found = {action: _errors(upright, action) for action in (*turns, *mirrors)}
    rows = {
        name: LayerCheck(
            name,
            type(output.module).__name__,
            tuple(output.value.shape),
            quarter_turns=max(found[action][name] for action in turns),
            mirrors=max(found[action][name] for action in mirrors),
        )
        for name, output in upright.outputs.items()
    }
    broken = next((name for name, row in rows.items() if row.exact_error > tolerance), None)
    if broken:
        worst = max(found, key=lambda action: found[action][broken])
        rows[broken] = replace(rows[broken], reason=_explain(upright, broken, worst, tolerance))
    return rows


def _check_angles(
    model: nn.Module, x: Tensor, rows: Mapping[str, LayerCheck], angles_deg: Sequence[float]
) -> dict[str, LayerCheck]:
    """Add the errors at other angles, within the disc."""
    # Outside the disc, turned images lack pixels; so the upright one must lack them, too.
    upright = _run_upright(model, x * disc_mask(*x.shape[2:]).to(x.device))
    found = dict(rows)
    for angle in angles_deg:
        there, back = (_rotations(sign * angle, x.dim() - 2) for sign in (1, -1))
        errors = [_errors(upright, action, in_disc=True) for action in there]
        for name, row in found.items():
            error = max(one.get(name, math.inf) for one in errors)
            floor = math.nan
            if name in upright.outputs:
                value, layout = upright.outputs[name].value, upright.layouts[name]
                floor = interpolation_floor(value, there, back, layout=layout)
            found[name] = replace(row, angles=(*row.angles, error), floors=(*row.floors, floor))
    return found


def _explain(upright: _Upright, name: str, action: Action, tolerance: float) -> str:
    """Guess why this output is the first to break, which it does under this action."""
    output, names = upright.outputs[name], list(upright.outputs)
    if not output.value.isfinite().all():
        return "its output holds numbers that are not finite"
    if _errors(upright, lambda same: same)[name] > tolerance:
        return "its output changes from one run to the next, even in eval mode"
    given = _inputs(upright.model, upright.x, output.call)
    turned = _inputs(upright.model, action(upright.x), output.call)
    errors = [
        min(
            output_error(before, after, action, layout=layout)
            for layout in likely_layouts(before, upright.x)
        )
        for before, after in zip(given, turned, strict=False)
    ]
    before = names[names.index(name) - 1] if names[0] != name else None
    parts = output.path.split(".") if output.path else []
    holders = [".".join(parts[:depth]) for depth in reversed(range(len(parts)))]
    return guess_reason(
        Call(
            output.module,
            around=tuple((holder, upright.model.get_submodule(holder)) for holder in holders),
            given=tuple(given[0].shape) if given else (),
            made=tuple(output.value.shape),
            before=tuple(upright.outputs[before].value.shape) if before else (),
            input_breaks=any(error > tolerance for error in errors),
        )
    )


def _run_upright(model: nn.Module, x: Tensor) -> _Upright:
    outputs: dict[str, _Output] = {}

    def keep(call: str, path: str, module: nn.Module, values: object) -> None:
        for name, value in named_tensors(call, values).items():
            # A copy, as what comes next may overwrite it in place.
            outputs[name] = _Output(call, path, module, value.clone())

    with listening(model, keep):
        model(x)
    return _Upright(model, x, outputs, _choose_layouts(model, x, outputs))


def _choose_layouts(
    model: nn.Module, x: Tensor, outputs: Mapping[str, _Output]
) -> dict[str, Layout]:
    """Tell channels first from channels last: by which of them turns with the input."""
    turn = _TURNS[x.dim() - 2][0]
    chosen = {name: likely_layouts(output.value, x)[0] for name, output in outputs.items()}

    def choose(call: str, path: str, module: nn.Module, values: object) -> None:
        for name, after in named_tensors(call, values).items():
            if name in outputs:
                before = outputs[name].value
                layouts = likely_layouts(before, x)
                errors = [output_error(before, after, turn, layout=one) for one in layouts]
                chosen[name] = layouts[errors.index(min(errors))]

    with listening(model, choose):
        model(turn(x))
    return chosen


def _inputs(model: nn.Module, x: Tensor, wanted: str) -> list[Tensor]:
    """Run the model and keep what one call is given."""
    inputs: list[Tensor] = []

    def keep(call: str, path: str, module: nn.Module, values: object) -> None:
        if call == wanted:
            inputs.extend(value.clone() for value in named_tensors(call, values).values())

    with listening(model, keep, entering=True):
        model(x)
    return inputs


def _errors(upright: _Upright, action: Action, *, in_disc: bool = False) -> dict[str, float]:
    """Run the model on the turned input; infinite where an output is missing."""
    errors = dict.fromkeys(upright.outputs, math.inf)

    def compare(call: str, path: str, module: nn.Module, values: object) -> None:
        for name, after in named_tensors(call, values).items():
            if name in errors:
                before, layout = upright.outputs[name].value, upright.layouts[name]
                errors[name] = output_error(before, after, action, layout=layout, in_disc=in_disc)

    with listening(upright.model, compare):
        upright.model(action(upright.x))
    return errors


def _rotations(angle_deg: float, dims: int) -> tuple[Action, ...]:
    if dims == 2:
        return (partial(rotate, angle_deg=angle_deg),)
    return tuple(partial(rotate_volume, angle_deg=angle_deg, axis=axis) for axis in range(3))


def _input_for(model: nn.Module, side: int) -> Tensor:
    kinds = (nn.Conv2d, nn.Conv3d, RadialConv)
    first = next((m for m in model.modules() if isinstance(m, kinds)), None)
    if first is None:
        raise ValueError("the model has no convolution that tells its channels; give x")
    dims = len(first.kernel_size)
    return example_input(in_channels=first.in_channels, side=side, dims=dims).to(first.weight)
