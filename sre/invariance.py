"""How far a network's answers change as its input turns, and where that comes in."""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from types import MappingProxyType

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from sre.layers import RadialConv
from sre.listening import evaluating
from sre.pooling import OrbitMean

TOLERANCE = 1e-4  # in single precision, relative to the largest value
DOUBLE_TOLERANCE = 1e-11
# The first that a model takes. Halved again and again, one of a pair is even where the other is
# odd, so that a window that advances by a stride shows at one of them.
EXAMPLE_SIDES_PX = MappingProxyType(
    {
        1: ((45, 52), (64,), (1024,)),
        2: ((45, 52), (77, 84), (32,), (28,), (64,), (224,)),
        3: ((13, 20), (16,), (28,), (32,)),
    }
)
Turn = Callable[[Tensor], Tensor]

_PLANES = MappingProxyType({2: ((-2, -1),), 3: ((-2, -1), (-3, -1), (-3, -2))})
# By one quarter in every plane, then by two, then by three; a signal is mirrored instead.
QUARTER_TURNS: Mapping[int, tuple[Turn, ...]] = MappingProxyType(
    {1: (partial(torch.flip, dims=(-1,)),)}
    | {
        dims: tuple(partial(torch.rot90, k=k, dims=plane) for k, plane in product((1, 2, 3), of))
        for dims, of in _PLANES.items()
    }
)
GENERATORS = MappingProxyType({1: 1, 2: 1, 3: 2})  # so many of these make up all the others


@dataclass(frozen=True, slots=True)
class Call:
    """What one module was given and answered; the first tensor of each, if there is one."""

    name: str
    module: nn.Module
    given: Tensor | None
    answer: Tensor | None


def invariance_error(model: nn.Module, x: Float[Tensor, "B C *space"]) -> float:
    """Measure how far the answers change over the quarter turns, relative to the largest.

    Logits are to stay; maps of as many axes as the input, as of a U-Net, are to turn with it.
    In eval mode. Volumes turn about all three axes; signals are mirrored.

    Returns: infinity where a turned input is answered in another shape

    >>> x = torch.randn(1, 3, 8, 8)
    >>> invariance_error(nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(3, 4)), x) < 1e-6
    True
    """
    dims = x.dim() - 2
    with evaluating(model):
        before = _first_tensor(model(x))
        if before is None:
            return math.inf
        worst = 0.0
        for turn in QUARTER_TURNS[dims]:
            after = _first_tensor(model(turn(x)))
            expected = turn(before) if before.dim() == dims + 2 else before
            worst = max(worst, _error(after, expected))
    return worst


def found_examples(model: nn.Module) -> list[Tensor]:
    """Make images of noise, one or two, of the first sides that a CNN takes; none if it takes none.

    >>> [x.shape for x in found_examples(nn.Sequential(nn.Conv2d(3, 1, 3)))]
    [torch.Size([1, 3, 45, 45]), torch.Size([1, 3, 52, 52])]
    """
    conv = next(m for m in model.modules() if isinstance(m, _ConvNd | RadialConv))
    dims, generator = len(conv.kernel_size), torch.Generator().manual_seed(0)
    for sides in EXAMPLE_SIDES_PX[dims]:
        shapes = [(1, conv.in_channels, *(side,) * dims) for side in sides]
        examples = [torch.randn(shape, generator=generator).to(conv.weight) for shape in shapes]
        try:
            with evaluating(model):
                for example in examples:
                    model(example)
        # What models raise for a side that they do not take.
        except (RuntimeError, ValueError, TypeError, LookupError, AssertionError):
            continue
        return examples
    return []


def first_break(model: nn.Module, examples: Sequence[Float[Tensor, "..."]]) -> str | None:
    """Name the module at which maps cease to turn with the image, or the forward it lies in.

    Every module's output for the turned input is held against its turned output; the first that
    differs is named. Where its input differs already, a function that some forward calls is
    to blame, and both are named. In double precision, on a copy: where the maps of a network
    fade with its depth, as untrained ones do, a fault fades with them.

    >>> net = nn.Sequential(nn.ReLU(), nn.Conv2d(1, 1, 3))
    >>> first_break(net, [torch.randn(1, 1, 8, 8)])
    '1 (Conv2d)'
    """
    if not examples:
        return None
    twin = copy.deepcopy(model).cpu().double()
    for x in examples:
        try:
            found = _first_break(twin, x.cpu().double(), DOUBLE_TOLERANCE)
        except RuntimeError:  # it makes tensors of another precision or device on its way
            found = _first_break(model, x.to(next(model.parameters())), TOLERANCE)
        if found:
            return found
    return None


def _first_break(model: nn.Module, x: Tensor, tolerance: float) -> str | None:
    dims, unturned = x.dim() - 2, _trace(model, x)
    for turn in _generators(dims):
        for before, after in zip(unturned, _trace(model, turn(x)), strict=False):
            module, name = before.module, before.name
            if _turned_error(before.answer, after.answer, module, turn, dims) <= tolerance:
                continue
            full_name = f"{name or 'the model'} ({type(module).__name__})"
            if name and _turned_error(before.given, after.given, module, turn, dims) > tolerance:
                return f"{full_name}, or before it in the forward of {_parent(name)}"
            return full_name
    return None


def flattened_sides(model: nn.Module, x: Float[Tensor, "B C *space"]) -> dict[str, int]:
    """Find the linear layers over flattened square or cubic maps, and the side of these.

    Such a layer is given rows that, laid out as a map with as many channels as the last map before
    it, turn with the image; so functions that were applied in between do not matter.
    """
    dims, unturned = x.dim() - 2, _trace(model, x, nn.Linear)
    found: dict[str, int] = {}
    for turn in _generators(dims):
        channels = 0
        for before, after in zip(unturned, _trace(model, turn(x), nn.Linear), strict=False):
            side = _flattened_side(before.given, channels, dims)
            if isinstance(before.module, nn.Linear) and side > 1:
                space = (channels, *(side,) * dims)
                maps, turned = (x.unflatten(1, space) for x in _given(before, after))
                fits = _error(turned, turn(maps)) <= TOLERANCE
                found[before.name] = side if fits and found.get(before.name, side) else 0
            if isinstance(before.module, OrbitMean):
                channels = 0  # what comes now has been averaged before
            elif before.answer is not None and before.answer.dim() == dims + 2:
                channels = before.answer.shape[1]
    return {name: side for name, side in found.items() if side}


def _given(*calls: Call) -> list[Tensor]:
    return [call.given for call in calls if call.given is not None]


def _flattened_side(rows: Tensor | None, channels: int, dims: int) -> int:
    if rows is None or rows.dim() != 2 or not channels:
        return 0
    side = round((rows.shape[1] / channels) ** (1 / dims))
    return side if channels * side**dims == rows.shape[1] else 0


def _generators(dims: int) -> tuple[Turn, ...]:
    return QUARTER_TURNS[dims][: GENERATORS[dims]]


def _parent(name: str) -> str:
    return name.rpartition(".")[0] or "the model"


def _trace(model: nn.Module, x: Tensor, kept: type[nn.Module] = nn.Module) -> list[Call]:
    # Inner modules come before those that they are part of. Copies, as layers work in place; of
    # modules of a kind that is not to be kept, the shapes alone.
    calls = []

    def note(module: nn.Module, given: object, answer: object, *, name: str) -> None:
        device = None if isinstance(module, kept) else "meta"
        copies = [_copied(value, device) for value in (given, answer)]
        calls.append(Call(name, module, *copies))

    hooks = [
        module.register_forward_hook(partial(note, name=name))
        for name, module in model.named_modules()
    ]
    try:
        with evaluating(model):
            model(x)
    finally:
        for hook in hooks:
            hook.remove()
    return calls


def _copied(value: object, device: str | None) -> Tensor | None:
    tensor = _first_tensor(value)
    if tensor is None:
        return None
    return tensor.clone() if device is None else torch.empty_like(tensor, device=device)


def _first_tensor(value: object) -> Tensor | None:
    if isinstance(value, Tensor):
        return value if value.is_floating_point() and value.numel() else None
    if isinstance(value, Mapping):
        value = tuple(value.values())
    if isinstance(value, tuple | list):
        return next((t for t in map(_first_tensor, value) if t is not None), None)
    return None


def _turned_error(
    before: Tensor | None, after: Tensor | None, module: nn.Module, turn: Turn, dims: int
) -> float:
    if before is None or before.dim() < 2:
        return 0.0
    if after is None or after.dim() != before.dim():
        return math.inf
    if before.dim() == dims + 2:  # channels first, or last
        return min(
            _error(after, turn(before)),
            _error(after.movedim(-1, 1), turn(before.movedim(-1, 1))),
        )
    side = math.isqrt(before.shape[1])
    extra = before.shape[1] - side**2
    if dims == 2 and before.dim() == 3 and extra <= 1:  # a row a pixel, maybe one for the class
        maps, turned = (x[:, extra:].mT.unflatten(2, (side, side)) for x in (before, after))
        return _error(turned, turn(maps))
    # What flattens a map, or drops out of one so flattened, is not to blame for its order.
    if before.dim() == 2 and any(True for _ in module.parameters(recurse=False)):
        return _error(after, before)
    return 0.0


def _error(after: Tensor | None, expected: Tensor) -> float:
    if after is None or after.shape != expected.shape:
        return math.inf
    scale = expected.abs().amax().clamp_min(torch.finfo(expected.dtype).tiny)
    error = float((after - expected).abs().amax() / scale)
    return math.inf if math.isnan(error) else error
