import doctest
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sre import invariance
from sre.invariance import (
    QUARTER_TURNS,
    evaluating,
    first_break,
    flattened_sides,
    found_examples,
    invariance_error,
)
from sre.layers import SREConv1d, SREConv2d, SREConv3d
from sre.pooling import OrbitMean
from sre.symmetry import grid_action, rotate_volume

RADIAL = {1: SREConv1d, 2: SREConv2d, 3: SREConv3d}
CONVS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


def head(dims: int, features: int) -> list[nn.Module]:
    pool = {1: nn.AdaptiveAvgPool1d, 2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d}
    return [pool[dims](1), nn.Flatten(), nn.Linear(features, 3)]


def network(conv: nn.Module, dims: int = 2) -> nn.Sequential:
    return nn.Sequential(conv, nn.ReLU(), *head(dims, conv.out_channels))


class Forward(nn.Module):
    """Puts a function behind its first part."""

    def __init__(self, function):
        super().__init__()
        self.function = function
        self.stem, self.body = SREConv2d(1, 4, 3, padding=1), SREConv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(self.function(self.stem(x)))


# Turns


def test_turns_are_those_of_the_grids():
    x, volume = torch.randn(1, 1, 4, 5), torch.randn(1, 1, 3, 4, 5)
    for n, turn in enumerate(QUARTER_TURNS[2], start=1):
        assert torch.equal(turn(x), grid_action(quarter_turns=n)(x))
    turned = [turn(volume) for turn in QUARTER_TURNS[3]]
    for axis in range(3):
        wanted = rotate_volume(volume, angle_deg=90, axis=axis)
        assert any(t.shape == wanted.shape and torch.equal(t, wanted) for t in turned[:3])
    assert len(turned) == 9
    assert torch.equal(QUARTER_TURNS[1][0](x), x.flip(-1))


# How far


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_radial_networks_are_invariant_and_ordinary_ones_are_not(dims):
    x = torch.randn(2, 2, *(9,) * dims)
    assert invariance_error(network(RADIAL[dims](2, 4, 3), dims), x) < 1e-5
    assert invariance_error(network(CONVS[dims](2, 4, 3), dims), x) > 1e-3


def test_maps_are_to_turn_with_the_image():
    assert invariance_error(SREConv2d(1, 2, 3), torch.randn(1, 1, 6, 8)) < 1e-6
    assert invariance_error(nn.AdaptiveAvgPool2d((2, 3)), torch.randn(1, 1, 6, 8)) == math.inf
    assert invariance_error(nn.Conv2d(1, 2, 3), torch.randn(1, 1, 8, 8)) > 0.1


def test_the_first_tensor_of_an_answer_counts():
    class Several(nn.Module):
        def forward(self, x):
            return {"sides": [x.shape[-1]], "out": (x.mean((2, 3)), x)}

    assert invariance_error(Several(), torch.randn(1, 2, 5, 5)) < 1e-5
    assert invariance_error(nn.Flatten(0), torch.zeros(1, 0, 2, 2)) == math.inf  # there is none


def test_broken_numbers_are_no_invariance():
    assert invariance_error(nn.LogSigmoid(), torch.full((1, 1, 4, 4), math.nan)) == math.inf


def test_modes_come_back_and_dropout_is_off():
    model = nn.Sequential(nn.Dropout(), nn.Sequential(nn.Dropout(), nn.BatchNorm2d(1)))
    model[1][0].eval()
    assert invariance_error(model, torch.randn(1, 1, 4, 4)) < 1e-6
    assert [m.training for m in model.modules()] == [True, True, True, False, True]
    with pytest.raises(KeyError), evaluating(model):
        raise KeyError
    assert model[0].training
    assert model[1][1].num_batches_tracked == 0


# Where


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_the_first_module_that_breaks_is_named(dims):
    conv = RADIAL[dims](2, 2, 3, padding=1)
    model = nn.Sequential(conv, nn.BatchNorm1d(2) if dims == 1 else nn.ReLU(), CONVS[dims](2, 2, 3))
    model.append(CONVS[dims](2, 2, 3))
    x = torch.randn(1, 2, *(9,) * dims)
    assert first_break(model, [x]) == f"2 (Conv{dims}d)"
    assert first_break(model[:2], [x]) is None
    assert first_break(model, []) is None


def test_a_function_in_a_forward_is_found():
    x = torch.randn(1, 1, 9, 9)
    assert first_break(Forward(F.relu), [x]) is None
    assert first_break(Forward(lambda x: F.max_pool2d(x, 2)), [x]) == (
        "body (SREConv2d), or before it in the forward of the model"
    )
    model = nn.Sequential(Forward(F.relu), nn.Sequential(Forward(F.relu)))
    model[1][0].stem = SREConv2d(4, 4, 3)
    model[1][0].function = lambda x: x * torch.arange(x.shape[-1])
    assert first_break(model, [x]) == "1.0.body (SREConv2d), or before it in the forward of 1.0"
    model[1][0].body = nn.Identity()
    model[1][0].forward = lambda x: x.cumsum(-1)
    assert first_break(model, [x]) == "1.0 (Forward)"


def test_any_of_the_examples_will_do():
    model = Forward(lambda x: F.max_pool2d(x, 2))
    even, odd = torch.randn(1, 1, 8, 8), torch.randn(1, 1, 9, 9)
    assert first_break(model, [even]) is None
    assert first_break(model, [even, odd])


def test_a_fault_is_found_where_maps_have_faded():
    faded = nn.Conv2d(1, 1, 1)
    nn.init.constant_(faded.weight, 1e-8)
    nn.init.ones_(faded.bias)
    model = nn.Sequential(faded, nn.Conv2d(1, 2, 3, padding=1, padding_mode="replicate"))
    x = torch.randn(1, 1, 8, 8)
    assert first_break(model, [x]) == "1 (Conv2d)"
    assert first_break(model[:1], [x]) is None


def test_maps_with_their_channels_last_and_rows_of_pixels_are_read():
    class Tokens(nn.Module):
        def __init__(self, place: Tensor):
            super().__init__()
            self.norm, self.place = nn.LayerNorm(2), nn.Parameter(place)
            self.last = nn.Identity()

        def forward(self, x):
            x = self.norm(x.movedim(1, -1)).movedim(-1, 1)
            return self.last(x.flatten(2).mT + self.place).mean(1)

    x = torch.randn(1, 2, 4, 4)
    assert first_break(Tokens(torch.zeros(16, 2)), [x]) is None
    assert "last (Identity)" in first_break(Tokens(torch.randn(16, 2)), [x])


def test_a_model_with_a_precision_of_its_own_is_measured_in_it():
    model = Forward(lambda x: x.float())
    assert first_break(model, [torch.randn(1, 1, 8, 8)]) is None
    model.body = nn.Conv2d(4, 4, 3)
    assert first_break(model, [torch.randn(1, 1, 8, 8)]) == "body (Conv2d)"


def test_no_hooks_are_left():
    model = network(nn.Conv2d(1, 2, 3))
    first_break(model, [torch.randn(1, 1, 8, 8)])
    flattened_sides(model, torch.randn(1, 1, 8, 8))
    with pytest.raises(RuntimeError):
        flattened_sides(model, torch.randn(1, 5, 8, 8))
    assert not any(module._forward_hooks for module in model.modules())


# Flattened maps


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_linear_layers_over_flattened_maps_are_found(dims):
    conv, x = RADIAL[dims](1, 2, 3), torch.randn(1, 1, *(6,) * dims)
    model = nn.Sequential(conv, nn.Flatten(), nn.ReLU(), nn.Linear(2 * 4**dims, 5), nn.Linear(5, 2))
    assert flattened_sides(model, x) == {"3": 4}
    model[3] = nn.Sequential(OrbitMean(4, dims=dims), model[3])
    assert flattened_sides(model, x) == {}
    assert flattened_sides(network(conv, dims), x) == {}


def test_so_are_those_over_maps_that_are_the_same_everywhere():
    model = nn.Sequential(
        SREConv2d(1, 2, 3), nn.AdaptiveAvgPool2d(1), nn.AdaptiveAvgPool2d(3), nn.Flatten(),
        nn.Linear(18, 2),
    )  # fmt: skip
    assert flattened_sides(model, torch.randn(1, 1, 5, 5)) == {"4": 3}


def test_those_that_do_not_turn_are_not():
    x = torch.randn(1, 1, 6, 6)
    ordinary = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(32, 5))
    assert flattened_sides(ordinary, x) == {}
    oblong = nn.Sequential(SREConv2d(1, 2, 3), nn.Flatten(), nn.Linear(2 * 2 * 4, 5))
    assert flattened_sides(oblong, torch.randn(1, 1, 4, 6)) == {}


# Examples


def test_examples_are_of_the_first_sides_that_fit():
    fixed = nn.Sequential(nn.Conv2d(3, 2, 1), nn.Flatten(), nn.Linear(2 * 28 * 28, 2)).double()
    (example,) = found_examples(fixed)
    assert example.shape == (1, 3, 28, 28)
    assert example.dtype == torch.float64
    fixed[2] = nn.Linear(7, 2).double()
    assert found_examples(fixed) == []
    assert [x.shape[2:] for x in found_examples(nn.Conv3d(1, 1, 1))] == [(13,) * 3, (20,) * 3]


def test_examples_do_not_touch_the_random_numbers():
    model = nn.Conv1d(1, 1, 1)
    state = torch.get_rng_state()
    first, again = found_examples(model), found_examples(model)
    assert torch.equal(first[0], again[0])
    assert torch.equal(torch.get_rng_state(), state)


def test_its_examples_run():
    assert doctest.testmod(invariance).failed == 0
