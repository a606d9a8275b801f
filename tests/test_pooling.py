import doctest
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import nn

from sre import pooling
from sre.pooling import (
    SYMMETRIES,
    OrbitMean,
    SidePool,
    ceiled_side,
    grown_side,
    strided_side,
)
from sre.symmetry import GRID_ACTIONS, VOLUME_ACTIONS, equivariance_error

sides = st.integers(1, 24)


@given(
    space=st.tuples(sides, sides),
    wanted=sides,
    action=st.sampled_from(GRID_ACTIONS),
    taking=st.sampled_from(["mean", "maximum"]),
    seed=st.integers(0, 2**16),
)
def test_the_pool_commutes_with_grid_symmetries(space, wanted, action, taking, seed):
    torch.manual_seed(seed)
    x = torch.randn(1, 2, *space, dtype=torch.float64)
    pool = SidePool(lambda side: side * wanted // 12, dims=2, taking=taking)
    assert equivariance_error(pool, action, x) < 1e-12


@pytest.mark.parametrize("taking", ["mean", "maximum"])
@pytest.mark.parametrize("side", [4, 5])
def test_the_pool_commutes_with_those_of_volumes_and_signals(side, taking):
    for dims, actions in SYMMETRIES.items():
        pool = SidePool(partial(strided_side, stride=2, shrinks=0), dims=dims, taking=taking)
        x = torch.randn(1, 2, *(side,) * dims, dtype=torch.float64)
        assert max(equivariance_error(pool, action, x) for action in actions) < 1e-12


def test_ordinary_pools_do_not():
    x = torch.randn(1, 2, 7, 7)
    assert equivariance_error(nn.MaxPool2d(2), GRID_ACTIONS[1], x) > 0.1


def test_there_are_so_many_symmetries():
    assert {dims: len(actions) for dims, actions in SYMMETRIES.items()} == {1: 2, 2: 8, 3: 48}
    x = torch.arange(3.0)
    assert [action(x).tolist() for action in SYMMETRIES[1]] == [[0, 1, 2], [2, 1, 0]]


@given(
    side=st.integers(1, 40),
    kernel=st.integers(1, 6),
    stride=st.integers(1, 5),
    padding=st.integers(0, 3),
    dilation=st.integers(1, 3),
)
def test_sides_are_those_that_pytorch_leaves(side, kernel, stride, padding, dilation):
    x, weight = torch.zeros(1, 1, side), torch.zeros(1, 1, kernel)
    reach = dilation * (kernel - 1)
    grows = reach - 2 * padding
    if side + 2 * padding > reach:
        got = F.conv1d(x, weight, stride=stride, padding=padding, dilation=dilation)
        assert got.shape[-1] == strided_side(side, stride=stride, shrinks=grows)
    if grown_side(side, stride=stride, grows=grows) > 0:
        got = F.conv_transpose1d(x, weight, stride=stride, padding=padding, dilation=dilation)
        assert got.shape[-1] == grown_side(side, stride=stride, grows=grows)


@given(side=st.integers(1, 40), kernel=st.integers(1, 6), stride=st.integers(1, 5), data=st.data())
def test_sides_are_rounded_up_as_pytorch_does(side, kernel, stride, data):
    padding = data.draw(st.integers(0, kernel // 2))
    assume(side + 2 * padding >= kernel)
    got = F.max_pool1d(torch.zeros(1, 1, side), kernel, stride, padding, ceil_mode=True)
    shrinks = kernel - 1 - 2 * padding
    wanted = ceiled_side(side, stride=stride, shrinks=shrinks, padding=padding)
    assert got.shape[-1] == wanted


def test_the_pool_takes_means_or_maxima_of_symmetric_windows():
    x = torch.tensor([[[1.0, 3.0, 8.0]]])
    halve = partial(strided_side, stride=2, shrinks=0)
    assert SidePool(halve, dims=1)(x).tolist() == [[[2.0, 5.5]]]
    assert SidePool(halve, dims=1, taking="maximum")(x).tolist() == [[[3.0, 8.0]]]
    assert SidePool(lambda side: 2 * side, dims=1)(x).tolist() == [[[1, 1, 3, 3, 8, 8]]]
    assert SidePool(lambda side: 0, dims=1)(x).tolist() == [[[4.0]]]  # at least one


@given(side=st.integers(1, 4), dims=st.sampled_from([1, 2, 3]), seed=st.integers(0, 2**16))
def test_a_linear_layer_over_the_mean_is_one_with_averaged_weights(side, dims, seed):
    torch.manual_seed(seed)
    linear = nn.Linear(2 * side**dims, 3).double()
    x = torch.randn(1, 2, *(side,) * dims, dtype=torch.float64)
    mean = OrbitMean(side, dims=dims)
    with torch.no_grad():
        answers = [linear(mean(action(x).flatten(1))) for action in SYMMETRIES[dims][::5]]
        averaged = F.linear(x.flatten(1), mean(linear.weight), linear.bias)
    for answer in answers:
        torch.testing.assert_close(answer, averaged, rtol=1e-12, atol=1e-12)


def test_a_linear_layer_alone_is_not_invariant():
    linear, x = nn.Linear(2 * 27, 3), torch.randn(1, 2, 3, 3, 3)
    turned = linear(VOLUME_ACTIONS[5](x).flatten(1))
    assert (turned - linear(x.flatten(1))).abs().amax() > 1e-2


def test_examples_run():
    assert doctest.testmod(pooling).failed == 0
