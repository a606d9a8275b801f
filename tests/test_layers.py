import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor, nn

from sre.layers import PADDING_MODES, SREConv1d, SREConv2d, SREConv3d, band_masks
from sre.symmetry import (
    GRID_ACTIONS,
    VOLUME_ACTIONS,
    equivariance_error,
    grid_action,
    relative_error,
    rotate,
)
from tests.images import band_limited, inner_disc

odd = st.integers(0, 7).map(lambda half: 2 * half + 1)  # 1 to 15
actions = st.sampled_from(GRID_ACTIONS)
seeds = st.integers(0, 2**16)


def fast_layer(**settings) -> SREConv2d:
    """A layer that takes the sums over bands."""
    return SREConv2d(8, 3, 5, padding=2, **settings)


# Symmetry


@given(
    kernel_size=st.sampled_from([1, 3, 5, 7, 9]),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 2),
    padding=st.integers(0, 5),
    padding_mode=st.sampled_from(PADDING_MODES),
    cells=st.tuples(st.integers(0, 6), st.integers(0, 6)),
    channels=st.sampled_from([2, 8]),
    circular=st.booleans(),
    dtype=st.sampled_from([torch.float64, torch.float32]),
    action=actions,
    seed=seeds,
)
def test_commutes_with_every_grid_symmetry(
    kernel_size, stride, dilation, padding, padding_mode, cells, channels, circular, dtype,
    action, seed,
):  # fmt: skip
    torch.manual_seed(seed)
    # The exact grids: the last sample lies as far from its edge as the first.
    height, width = (stride * n + dilation * (kernel_size - 1) + 1 - 2 * padding for n in cells)
    assume(height > padding and width > padding)
    layer = SREConv2d(
        channels, 3, kernel_size, stride, padding, dilation, padding_mode=padding_mode,
        circular=circular, dtype=dtype,
    )  # fmt: skip
    x = torch.randn(1, channels, height, width, dtype=dtype)
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    with torch.no_grad():
        assert equivariance_error(layer, action, x) < tolerance


@pytest.mark.parametrize("action", GRID_ACTIONS[1:], ids=str)
def test_an_ordinary_convolution_fails_the_same_check(action):
    plain = nn.Conv2d(2, 3, 5, padding=2).double()
    assert equivariance_error(plain, action, torch.randn(1, 2, 9, 9).double()) > 0.1


@pytest.mark.parametrize(
    ("side", "settings"),
    [
        (8, {"kernel_size": 3, "stride": 2, "padding": 1}),
        (9, {"kernel_size": 1, "stride": 3}),
        (28, {"kernel_size": 9, "stride": 2, "padding": 4}),
        (9, {"kernel_size": 5, "stride": 2, "padding": 1, "dilation": 1, "extra": 1}),
    ],
)
def test_other_grids_fail_the_same_check(side, settings):
    side += settings.pop("extra", 0)
    layer = SREConv2d(2, 3, **settings).double()
    error = equivariance_error(
        layer, grid_action(quarter_turns=1), torch.randn(1, 2, side, side).double()
    )
    assert error > 0.1


@pytest.mark.parametrize("angle_deg", [20, 30, 45])
@pytest.mark.parametrize("kernel_size", [3, 5, 7, 9])
def test_nearly_commutes_with_other_angles(kernel_size, angle_deg):
    def error(layer: nn.Module, image: Tensor) -> float:
        turned_after = rotate(layer(image), angle_deg=angle_deg)
        turned_before = layer(rotate(image, angle_deg=angle_deg))
        inside = inner_disc(65, margin=kernel_size // 2 + 2)
        return float(relative_error(turned_before, turned_after, inside))

    sre = SREConv2d(2, 3, kernel_size, padding=kernel_size // 2, bias=False).double()
    plain = nn.Conv2d(2, 3, kernel_size, padding=kernel_size // 2, bias=False).double()
    smooth, noise = band_limited(65), torch.randn(1, 2, 65, 65).double()
    with torch.no_grad():
        # Measured over 10 seeds and these angles: SRE 0.001 to 0.006, plain 0.03 to 0.68; on white
        # noise, which no interpolation can turn, SRE too has 0.21 to 0.51.
        assert error(sre, smooth) < 0.01
        assert error(plain, smooth) > 0.02
        assert error(sre, noise) > 0.1


# The same as nn.Conv2d with the dense kernel


@given(
    kernel_size=odd,
    stride=st.integers(1, 3),
    padding=st.one_of(
        st.integers(0, 8), st.tuples(st.integers(0, 8), st.integers(0, 8)),
        st.sampled_from(["same", "valid"]),
    ),
    dilation=st.one_of(st.integers(1, 3), st.tuples(st.integers(1, 3), st.integers(1, 3))),
    groups=st.sampled_from([1, 2, 4]),
    channels=st.sampled_from([4, 8]),
    bias=st.booleans(),
    padding_mode=st.sampled_from(PADDING_MODES),
    circular=st.booleans(),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    batch=st.sampled_from([(), (0,), (1,), (2,)]),
    channels_last=st.booleans(),
    seed=seeds,
)  # fmt: skip
def test_equals_an_ordinary_layer_with_its_kernel(
    kernel_size, stride, padding, dilation, groups, channels, bias, padding_mode, circular, size,
    batch, channels_last, seed,
):  # fmt: skip
    torch.manual_seed(seed)
    settings = {
        "kernel_size": kernel_size, "stride": 1 if padding == "same" else stride,
        "padding": padding, "dilation": dilation, "groups": groups, "bias": bias,
        "padding_mode": padding_mode, "dtype": torch.float64,
    }  # fmt: skip
    layer = SREConv2d(channels, 4, **settings, circular=circular)
    plain = nn.Conv2d(channels, 4, **settings)
    plain.load_state_dict({**layer.state_dict(), "weight": layer.kernel.detach()})
    x = torch.randn(*batch, channels, *size, dtype=torch.float64)
    if channels_last and len(batch) == 1:
        x = x.contiguous(memory_format=torch.channels_last)
    try:
        expected = plain(x)
    except RuntimeError:  # the image is smaller than the kernel, or than what is reflected
        with pytest.raises(RuntimeError):
            layer(x)
        return
    torch.testing.assert_close(layer(x), expected, rtol=1e-12, atol=1e-11)


@given(
    kernel_size=st.sampled_from([5, 7, 9, 11, 13, 15]),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    batch=st.integers(0, 2),
    circular=st.booleans(),
    bias=st.booleans(),
    channels_last=st.booleans(),
    seed=seeds,
)
def test_the_sums_equal_the_dense_way_in_values_and_gradients(
    kernel_size, size, batch, circular, bias, channels_last, seed
):
    torch.manual_seed(seed)
    fast = SREConv2d(
        8, 3, kernel_size, padding="same", bias=bias, circular=circular, dtype=torch.float64
    )
    dense = copy.deepcopy(fast)
    dense.dense = True
    x = torch.randn(batch, 8, *size, dtype=torch.float64)
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    x.requires_grad_()
    assert fast.takes_band_sums(x)
    assert not dense.takes_band_sums(x)
    results = []
    for layer in (fast, dense):
        y = layer(x)
        score = (y * torch.arange(y.numel(), dtype=y.dtype).view(y.shape).sin()).sum()
        results.append([y, *torch.autograd.grad(score, [x, *layer.parameters()])])
    for got, wanted in zip(*results, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-11, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kernel_size", [3, 9, 15])
@pytest.mark.parametrize("size", [(1, 224), (224, 223), (113, 64), (224, 2)], ids=str)
def test_the_sums_equal_the_dense_way_at_large_sides(size, kernel_size, dtype):
    fast = SREConv2d(8, 3, kernel_size, padding="same", dtype=dtype)
    exact = copy.deepcopy(fast).double()
    exact.dense = True
    x = torch.randn(1, 8, *size, dtype=dtype)
    assert fast.takes_band_sums(x)
    upstream = torch.randn(1, 3, *size, dtype=dtype)
    results = []
    for layer, image in ((fast, x), (exact, x.double())):
        image.requires_grad_()
        y = layer(image)
        grads = torch.autograd.grad(y, [image, *layer.parameters()], upstream.to(y.dtype))
        results.append([y, *grads])
    for got, wanted in zip(*results, strict=True):
        error = (got.double() - wanted).abs().amax() / wanted.abs().amax()
        assert error < (1e-5 if dtype == torch.float32 else 1e-12)


@pytest.mark.parametrize(
    "settings",
    [
        {"kernel_size": 1, "padding": 0},
        {"in_channels": 4},
        {"stride": 2},
        {"padding": 0},
        {"padding": (2, 1)},
        {"dilation": 2, "padding": 4},
        {"groups": 2},
        {"padding_mode": "reflect"},
        {"dense": True},
    ],
    ids=str,
)
def test_elsewhere_the_dense_kernel_is_taken(settings):
    settings = {"in_channels": 8, "out_channels": 4, "kernel_size": 5, "padding": 2, **settings}
    layer = SREConv2d(**settings)
    assert not layer.takes_band_sums(torch.zeros(1, settings["in_channels"], 12, 12))


def test_weights_stay_stored_band_by_band_and_need_not_be():
    layer, x = fast_layer(), torch.randn(2, 8, 12, 12)
    plain = {name: value.contiguous() for name, value in layer.state_dict().items()}
    loaded = fast_layer()
    loaded.load_state_dict(plain)
    for same in (layer, copy.deepcopy(layer), copy.deepcopy(layer).double().float(), loaded):
        assert same.weight.permute(2, 1, 0).is_contiguous()
        torch.testing.assert_close(same(x), layer(x))
    loaded.load_state_dict(plain, assign=True)
    assert not loaded.weight.permute(2, 1, 0).is_contiguous()
    torch.testing.assert_close(loaded(x), layer(x))


@pytest.mark.parametrize("k", [3, 5])
def test_takes_the_arguments_of_an_ordinary_layer_in_their_order(k):
    arguments = (4, 6, (k, k), (2, 1), (1, 2), (1, 1), 2, False, "reflect", "cpu", torch.float64)
    layer, plain = SREConv2d(*arguments), nn.Conv2d(*arguments)
    x = torch.randn(2, 4, 11, 12, dtype=torch.float64)
    assert layer(x).shape == plain(x).shape
    assert layer.bias is None
    assert layer.weight.dtype == torch.float64


def test_starts_in_the_range_of_an_ordinary_layer():
    layer, plain = SREConv2d(16, 64, 5), nn.Conv2d(16, 64, 5)
    for mine, theirs in zip(layer.parameters(), plain.parameters(), strict=True):
        assert float(mine.detach().abs().amax()) == pytest.approx(
            float(theirs.detach().abs().amax()), rel=0.05
        )


# Weights and kernels


@pytest.mark.parametrize("circular", [True, False])
@pytest.mark.parametrize("kernel_size", [1, 3, 5, 7, 9, 11])
def test_there_is_one_weight_a_band(kernel_size, circular):
    layer = SREConv2d(6, 4, kernel_size, groups=2, circular=circular)
    bands = kernel_size // 2 + (1 if circular else 2)
    assert layer.weight.shape == (4, 3, bands)
    assert layer.kernel.shape == (4, 3, kernel_size, kernel_size)
    assert band_masks(kernel_size, circular=circular).shape == (bands, kernel_size, kernel_size)


def test_the_kernel_of_three_bands():
    layer = SREConv2d(1, 1, 5, bias=False)
    nn.init.ones_(layer.weight)
    layer.weight.data[0, 0] = torch.tensor([7.0, 5.0, 3.0])
    assert layer.kernel[0, 0].tolist() == [
        [0, 3, 3, 3, 0],
        [3, 5, 5, 5, 3],
        [3, 5, 7, 5, 3],
        [3, 5, 5, 5, 3],
        [0, 3, 3, 3, 0],
    ]


def test_the_masks_do_not_overlap():
    assert band_masks(9).sum(0).amax() == 1
    assert band_masks(9).sum() == 69
    assert torch.equal(band_masks(9, circular=False).sum(0), torch.ones(9, 9))


# Nothing goes stale


def assert_follows(layer: SREConv2d, other: SREConv2d) -> None:
    """Both ways of convolving use the weights that the layer has now."""
    x = torch.randn(2, 8, 11, 11, dtype=layer.weight.dtype)
    assert torch.equal(layer.weight, other.weight)
    assert torch.equal(layer.kernel, other.kernel)
    expected = F.conv2d(x, other.kernel, other.bias, padding=2)
    torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-4)
    layer.dense = True
    torch.testing.assert_close(layer(x), expected)


def used_layer(**settings) -> SREConv2d:
    layer = fast_layer(**settings).eval()
    layer(torch.randn(1, 8, 11, 11, dtype=layer.weight.dtype))
    assert layer.kernel is not None
    return layer


def test_loading_weights_in_eval_mode_changes_the_kernel():
    layer, other = used_layer(), fast_layer()
    layer.load_state_dict(other.state_dict())
    assert not layer.training
    assert_follows(layer, other)


def test_a_training_step_changes_the_kernel():
    layer = used_layer()
    with torch.no_grad():
        layer.weight.mul_(2)
    assert_follows(layer, copy.deepcopy(layer))


def test_a_deep_copy_has_weights_of_its_own():
    layer = used_layer()
    twin = copy.deepcopy(layer)
    before = layer.kernel.detach().clone()
    with torch.no_grad():
        twin.weight.add_(1)
    assert torch.equal(layer.kernel, before)
    assert not torch.equal(twin.kernel, before)
    assert_follows(twin, copy.deepcopy(twin))


def test_a_layer_moves_to_double_precision():
    layer = used_layer()
    before = layer.kernel.detach()
    layer.to(torch.float64)
    assert layer.kernel.dtype == layer(torch.randn(1, 8, 9, 9).double()).dtype == torch.float64
    assert torch.equal(layer.kernel, before.double())
    assert_follows(layer, fast_copy(layer))


def fast_copy(layer: SREConv2d) -> SREConv2d:
    twin = fast_layer(dtype=layer.weight.dtype)
    twin.load_state_dict(layer.state_dict())
    return twin


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_layer_moves_to_half_precision(dtype):
    layer = used_layer()
    x = torch.randn(2, 8, 11, 11)
    expected = layer(x)
    layer = layer.half() if dtype == torch.float16 else layer.to(dtype)
    assert layer.kernel.dtype == dtype
    got = layer(x.to(dtype))
    assert got.dtype == dtype
    torch.testing.assert_close(got.float(), expected, rtol=0.05, atol=0.05)
    back = layer.float()
    assert_follows(back, fast_copy(back))


def test_a_layer_survives_pickling():
    layer = used_layer()
    twin = pickle.loads(pickle.dumps(layer))
    assert_follows(twin, layer)
    with torch.no_grad():
        twin.weight.zero_()
    assert not twin.kernel.any()


def test_the_state_holds_what_is_learned_and_no_more():
    assert set(fast_layer().state_dict()) == {"weight", "bias"}


def test_runs_under_autocast_and_in_inference_mode():
    layer, x = used_layer(), torch.randn(2, 8, 11, 11)
    expected = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = layer(x)
    assert mixed.dtype == torch.bfloat16
    torch.testing.assert_close(mixed.float(), expected, rtol=0.05, atol=0.05)
    with torch.inference_mode():
        torch.testing.assert_close(layer(x), expected)


# One and three dimensions

FAMILY = {1: (SREConv1d, nn.Conv1d), 3: (SREConv3d, nn.Conv3d)}


@given(
    dims=st.sampled_from([1, 3]),
    kernel_size=st.sampled_from([1, 3, 5, 7]),
    stride=st.integers(1, 2),
    padding=st.one_of(st.integers(0, 4), st.sampled_from(["same", "valid"])),
    dilation=st.integers(1, 2),
    groups=st.sampled_from([1, 2]),
    bias=st.booleans(),
    padding_mode=st.sampled_from(PADDING_MODES),
    dtype=st.sampled_from([torch.float64, torch.float32]),
    size=st.tuples(*[st.integers(1, 10)] * 3),
    seed=seeds,
)
def test_signals_and_volumes_equal_an_ordinary_layer_with_its_kernel(
    dims, kernel_size, stride, padding, dilation, groups, bias, padding_mode, dtype, size, seed
):
    torch.manual_seed(seed)
    ours, theirs = FAMILY[dims]
    stride = 1 if padding == "same" else stride
    arguments = (8, 4, kernel_size, stride, padding, dilation, groups, bias, padding_mode)
    layer, plain = ours(*arguments, dtype=dtype), theirs(*arguments, dtype=dtype)
    plain.load_state_dict({**layer.state_dict(), "weight": layer.kernel.detach()})
    x = torch.randn(2, 8, *size[:dims], dtype=dtype)
    try:
        expected = plain(x)
    except RuntimeError:
        with pytest.raises(RuntimeError):
            layer(x)
        return
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    got = layer(x)
    assert got.shape == expected.shape
    if got.numel():
        scale = float(expected.abs().amax().detach().clamp_min(1))
        torch.testing.assert_close(got, expected, rtol=0, atol=tolerance * scale)


@pytest.mark.parametrize("padding_mode", PADDING_MODES)
@pytest.mark.parametrize(("stride", "side"), [(1, 8), (2, 9)])
def test_volumes_turn_exactly_and_signals_mirror(stride, side, padding_mode):
    settings = {"stride": stride, "padding": 2, "padding_mode": padding_mode}
    solid = SREConv3d(8, 3, 5, **settings)
    x = torch.randn(1, 8, side, side, side)
    with torch.no_grad():
        for action in VOLUME_ACTIONS[1::5]:
            assert equivariance_error(solid, action, x) < 1e-5
            assert equivariance_error(nn.Conv3d(8, 3, 5, **settings), action, x) > 0.1
    line, x = SREConv1d(2, 3, 5, **settings).double(), torch.randn(1, 2, side).double()
    assert equivariance_error(line, lambda x: x.flip(-1), x) < 1e-12


@pytest.mark.parametrize("k", [1, 3, 5])
def test_signals_and_volumes_have_one_weight_a_band(k):
    assert SREConv1d(6, 4, k, groups=2).weight.shape == (4, 3, k // 2 + 1)
    assert SREConv3d(6, 4, k, circular=False).weight.shape == (4, 6, k // 2 + 2)
    assert SREConv3d(6, 4, k).kernel.shape == (4, 6, k, k, k)


# What is refused


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kernel_size": 4}, r"kernel_size must be odd and positive, got 4; try 5$"),
        ({"kernel_size": (6, 6)}, r"kernel_size must be odd and positive, got 6; try 7$"),
        ({"kernel_size": 0}, r"kernel_size must be odd and positive, got 0; try 1$"),
        ({"kernel_size": (3, 5)}, r"kernel_size must be the same along all axes, got 3x5; try 5$"),
        ({"groups": 3}, r"groups must divide in_channels and out_channels, got 3 for 8 and 4; "),
        ({"groups": 0}, r"groups must divide in_channels and out_channels, got 0 for 8 and 4; "),
        ({"padding_mode": "mirror"}, r"unknown padding_mode 'mirror'; choose from zeros, reflect"),
        ({"padding": "half"}, r"padding must be 'same', 'valid' or numbers, got 'half'$"),
        ({"padding": "same", "stride": 2}, r"padding='same' needs stride 1, got 2; try padding=2$"),
    ],
    ids=str,
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        SREConv2d(8, 4, **{"kernel_size": 5, **settings})


@pytest.mark.parametrize(
    ("layer", "settings", "message"),
    [
        (SREConv1d, {"circular": False}, r"of one dimension has no corners; leave circular=True$"),
        (SREConv3d, {"kernel_size": (3, 7, 7)}, r"same along all axes, got 3x7x7; try 7$"),
        (SREConv3d, {"stride": (2, 2)}, r"SREConv3d has 3 axes, got 2 numbers for them; give one"),
    ],
    ids=str,
)
def test_wrong_settings_of_signals_and_volumes_are_named(layer, settings, message):
    with pytest.raises(ValueError, match=message):
        layer(8, 4, **{"kernel_size": 5, **settings})


def test_prints_its_settings():
    assert repr(SREConv2d(3, 8, 9, padding="same")) == (
        "SREConv2d(3, 8, kernel_size=9, bands=5, stride=(1, 1), padding='same')"
    )
