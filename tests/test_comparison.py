import math
from functools import partial

import pytest
import torch

from sre.comparison import interpolation_floor, likely_layouts, output_error
from sre.symmetry import grid_action, rotate

FIRST, LAST, NONE, OTHER = "channels first", "channels last", "no space", "other"
TURN = grid_action(quarter_turns=1)
KEPT = torch.tensor([[[[0.0, 0.0], [0.0, 3.0]]]])


@pytest.mark.parametrize(
    ("shape", "layouts"),
    [
        ((2, 4, 7, 7), (FIRST, LAST)),
        ((1, 4, 7, 7), (FIRST, LAST)),  # part of the batch
        ((8, 4, 7, 7), (OTHER,)),  # windows
        ((0, 4, 7, 7), (OTHER,)),
        ((2, 10), (NONE,)),
        ((2,), (NONE,)),
        ((), (NONE,)),
        ((2, 49, 4), (OTHER,)),
        ((2, 4, 7, 7, 7), (OTHER,)),
    ],
)
def test_layouts(shape, layouts):
    assert likely_layouts(torch.zeros(shape), torch.zeros(2, 3, 28, 28)) == layouts


def test_layouts_of_volumes():
    x = torch.zeros(2, 3, 9, 9, 9)
    assert likely_layouts(torch.zeros(2, 4, 3, 3, 3), x) == (FIRST, LAST)
    assert likely_layouts(torch.zeros(2, 4, 3, 3), x) == (OTHER,)


def test_errors_on_paper():
    # Turned, the one pixel is elsewhere: the difference has two of it.
    assert output_error(KEPT, KEPT, TURN, layout=FIRST) == pytest.approx(2**0.5)
    assert output_error(KEPT, TURN(KEPT), TURN, layout=FIRST) == 0
    last = KEPT.movedim(1, -1)
    assert output_error(last, last, TURN, layout=LAST) == pytest.approx(2**0.5)
    assert output_error(last, TURN(KEPT).movedim(1, -1), TURN, layout=LAST) == 0
    logits = torch.tensor([[3.0, 4.0], [1.0, 0.0]])
    changed = torch.tensor([[3.0, 3.0], [1.0, 0.1]])
    assert output_error(logits, changed, TURN, layout=NONE) == pytest.approx(0.2)
    assert output_error(logits.sum(), logits.sum() * 2, TURN, layout=NONE) == 1


def test_errors_within_the_disc():
    corner = torch.zeros(1, 1, 5, 5)
    corner[..., 2, 2], corner[..., 0, 0] = 1, 1
    assert output_error(corner, corner, TURN, layout=FIRST) == pytest.approx(1.0)
    assert output_error(corner, corner, TURN, layout=FIRST, in_disc=True) == 0


def test_maps_that_are_not_square():
    maps = torch.randn(1, 2, 3, 5)
    assert output_error(maps, TURN(maps), TURN, layout=FIRST) == 0
    assert output_error(maps, 2 * TURN(maps), TURN, layout=FIRST) == pytest.approx(1.0)
    assert output_error(maps, maps, TURN, layout=FIRST) == math.inf


@pytest.mark.parametrize(
    "after", [KEPT[0], KEPT[..., :1], KEPT * math.nan], ids=["axes", "side", "nan"]
)
def test_what_differs_in_shape_or_is_not_finite(after):
    assert output_error(KEPT, after, TURN, layout=FIRST) == math.inf


def test_what_cannot_be_compared():
    assert math.isnan(output_error(KEPT, KEPT, TURN, layout=OTHER))
    turns = [partial(rotate, angle_deg=30.0)]
    assert math.isnan(interpolation_floor(KEPT, turns, turns, layout=OTHER))
    assert math.isnan(interpolation_floor(KEPT, turns, turns, layout=NONE))


def test_the_floor_is_the_largest_of_the_turns():
    maps, exact = torch.randn(1, 2, 9, 9), [TURN, grid_action(quarter_turns=3)]
    there, back = partial(rotate, angle_deg=30.0), partial(rotate, angle_deg=-30.0)
    floor = interpolation_floor(maps, [there], [back], layout=FIRST)
    assert floor > 0.2
    assert interpolation_floor(maps, exact, exact[::-1], layout=FIRST) == 0
    both = interpolation_floor(maps, [there, TURN], [back, exact[1]], layout=FIRST)
    assert both == floor
    last = interpolation_floor(maps.movedim(1, -1), [there], [back], layout=LAST)
    assert last == pytest.approx(floor)
