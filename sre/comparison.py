"""How one output of a network for a turned input differs from the turned one for the upright input.

Outputs are tensors of any layer: maps with channels first or last, features and logits, or others
whose axes nobody knows.
"""

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from sre.symmetry import disc_mask, relative_error

Action = Callable[[Tensor], Tensor]
Layout = Literal["channels first", "channels last", "no space", "other"]


def likely_layouts(output: Tensor, x: Tensor) -> tuple[Layout, ...]:
    """Name the ways in which a network may lay out this output for images or volumes x.

    >>> x = torch.zeros(1, 3, 8, 8)
    >>> likely_layouts(torch.zeros(1, 4, 4, 16), x)
    ('channels first', 'channels last')
    >>> likely_layouts(torch.zeros(1, 10), x), likely_layouts(torch.zeros(1, 64, 16), x)
    (('no space',), ('other',))
    """
    if output.dim() == 0:
        return ("no space",)
    if not 0 < len(output) <= len(x):  # windows or patches on the axis of the batch
        return ("other",)
    if output.dim() <= 2:
        return ("no space",)
    return ("channels first", "channels last") if output.dim() == x.dim() else ("other",)


def output_error(
    before: Tensor, after: Tensor, action: Action, *, layout: Layout, in_disc: bool = False
) -> float:
    """Measure ``||f(g·x) - g·f(x)|| / ||f(x)||``, the largest of the batch.

    Outputs without spatial axes are to stay: ``||f(g·x) - f(x)|| / ||f(x)||``.

    Args: before: f(x); after: f(g·x); in_disc: pass over what lies outside the inscribed disc
    Returns: infinity where shapes differ or numbers are not finite; NaN for other layouts

    >>> maps = torch.tensor([[[[0.0, 0.0], [0.0, 1.0]]]])
    >>> output_error(maps, maps, lambda x: x.flip(-1), layout="channels first")  # root of 2
    1.41421...
    """
    if layout == "other":
        return math.nan
    if before.dim() != after.dim():
        return math.inf
    was, got = _channels_first(before, layout), _channels_first(after, layout)
    wanted = was if layout == "no space" else action(was)
    if got.shape != wanted.shape:
        return math.inf
    # Maps that are not square have another shape when turned by 90 degrees, but the same norm.
    return _largest(got, wanted, was if was.shape == wanted.shape else wanted, in_disc=in_disc)


def interpolation_floor(
    output: Tensor, there: Sequence[Action], back: Sequence[Action], *, layout: Layout
) -> float:
    """Measure ``||g'·g·f(x) - f(x)|| / ||f(x)||`` within the disc: of turning there and back alone.

    Returns: the largest of the batch and of the pairs of turns; NaN without spatial axes

    >>> from functools import partial
    >>> from sre.symmetry import rotate
    >>> there, back = partial(rotate, angle_deg=30), partial(rotate, angle_deg=-30)
    >>> interpolation_floor(torch.randn(1, 8, 9, 9), [there], [back], layout="channels first") > 0.2
    True
    """
    if layout in ("no space", "other"):
        return math.nan
    maps = _channels_first(output, layout)
    returned = [turn_back(turn(maps)) for turn, turn_back in zip(there, back, strict=True)]
    return max(_largest(got, maps, maps, in_disc=True) for got in returned)


def _channels_first(output: Tensor, layout: Layout) -> Float[Tensor, "B C *space"]:
    output = output if output.dtype == torch.float64 else output.float()
    if layout == "no space":
        return output.reshape(len(output) if output.dim() else 1, -1)
    return output.movedim(-1, 1) if layout == "channels last" else output


def _largest(got: Tensor, wanted: Tensor, against: Tensor, *, in_disc: bool) -> float:
    space = wanted.shape[2:]
    mask = disc_mask(*space) if in_disc and space else torch.ones(space, dtype=torch.bool)
    error = float(relative_error(got, wanted, mask.to(got.device), against=against).max())
    return math.inf if math.isnan(error) else error
