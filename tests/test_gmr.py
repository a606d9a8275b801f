import copy
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from sre.gmr import GMRConv1d, GMRConv2d, GMRConv3d, parameter_groups
from sre.layers import PADDING_MODES, SREConv2d
from sre.models import build_model
from sre.symmetry import GRID_ACTIONS, VOLUME_ACTIONS, equivariance_error

LAYERS = {1: GMRConv1d, 2: GMRConv2d, 3: GMRConv3d}
ACTIONS = {1: (lambda x: x.flip(-1),), 2: GRID_ACTIONS[1:], 3: VOLUME_ACTIONS[1::7]}


@given(
    dims=st.sampled_from([1, 2, 3]),
    kernel_size=st.sampled_from([1, 3, 5, 9]),
    stride=st.integers(1, 2),
    padding=st.integers(0, 2),
    groups=st.sampled_from([1, 2]),
    bias=st.booleans(),
    padding_mode=st.sampled_from(PADDING_MODES),
    dtype=st.sampled_from([torch.float64, torch.float32]),
    seed=st.integers(0, 2**16),
)
def test_converts_exactly_to_an_sre_layer(
    dims, kernel_size, stride, padding, groups, bias, padding_mode, dtype, seed
):
    torch.manual_seed(seed)
    layer = LAYERS[dims](
        8, 4, kernel_size, stride, padding, 1, groups, bias, padding_mode, dtype=dtype
    )
    nn.init.normal_(layer.log_sigma, std=2)  # some beyond what is clamped
    x = torch.randn(2, 8, *(9,) * dims, dtype=dtype)
    twin = layer.to_sre()
    expected, got = layer(x), twin(x)
    tolerance = 1e-12 if dtype == torch.float64 else 1e-6
    assert (got - expected).abs().amax() <= tolerance * expected.abs().amax().clamp_min(1)
    assert not hasattr(twin, "log_sigma")
    before = layer.weight.detach().clone()
    with torch.no_grad():
        twin.weight.zero_()
    assert torch.equal(layer.weight, before)


@pytest.mark.parametrize("dims", LAYERS)
def test_commutes_with_every_grid_symmetry(dims):
    layer = LAYERS[dims](8, 3, 5, padding=2, dtype=torch.float64)
    x = torch.randn(1, 8, *(9,) * dims, dtype=torch.float64)
    for action in ACTIONS[dims]:
        assert equivariance_error(layer, action, x) < 1e-12


def test_the_spread_by_hand():
    layer = GMRConv2d(1, 1, 5)
    with torch.no_grad():
        layer.log_sigma.copy_(torch.tensor([1.0, 0.5, 1e-9]).log())
    first = [1 / 2.5066, 0.60653 / 2.5066, 0.13534 / 2.5066]
    assert layer.spread[0].tolist() == pytest.approx(first, rel=1e-4)
    assert layer.spread[1, 0].item() == pytest.approx(0.13534 / (2.5066 * 0.5), rel=1e-4)
    assert layer.spread[2].tolist() == pytest.approx([0, 0, 100 / 2.5066])  # sigma is 0.01 or more


def test_rings_start_as_wide_as_a_band():
    for kernel_size, band in ((3, 1.5), (5, 1.25), (9, 1.125)):
        layer = GMRConv2d(2, 2, kernel_size)
        assert layer.log_sigma.exp().tolist() == pytest.approx(
            [band / 2.355] * (kernel_size // 2 + 1)
        )


def test_learns_its_widths_and_never_goes_stale():
    layer, x = GMRConv2d(8, 4, 5, padding=2), torch.randn(2, 8, 11, 11)
    layer(x).square().sum().backward()
    assert layer.log_sigma.grad.abs().amin() > 0
    layer.eval()
    before = layer(x)
    with torch.no_grad():
        layer.log_sigma.add_(1)
    assert not torch.allclose(layer(x), before)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(twin(x), layer(x))
    fresh = GMRConv2d(8, 4, 5, padding=2)
    fresh.load_state_dict(layer.state_dict())
    assert torch.equal(fresh(x), layer(x))
    assert layer.double()(x.double()).dtype == torch.float64


def test_takes_the_sums_over_bands_like_an_sre_layer():
    layer, x = GMRConv2d(8, 4, 9, padding="same"), torch.randn(2, 8, 16, 16)
    assert layer.takes_band_sums(x)
    fast = layer(x)
    layer.dense = True
    torch.testing.assert_close(layer(x), fast, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("decays_vectors", [True, False])
def test_widths_are_spared_the_weight_decay(decays_vectors):
    model = build_model("gmr_resnet18", in_channels=1, num_classes=2, width=4)
    decayed, spared = parameter_groups(model, weight_decay=0.1, decays_vectors=decays_vectors)
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.1, 0.0)
    widths = {id(p) for name, p in model.named_parameters() if name.endswith("log_sigma")}
    assert len(widths) == 17
    assert widths <= {id(p) for p in spared["params"]}
    assert len(decayed["params"]) + len(spared["params"]) == len(list(model.parameters()))
    assert (len(spared["params"]) == 17) == decays_vectors


def test_a_network_without_rings_is_one_group():
    layer = SREConv2d(1, 2, 3)
    (group,) = parameter_groups(layer, weight_decay=0.1)
    assert group["params"] == list(layer.parameters())


def test_wrong_settings_are_named():
    with pytest.raises(ValueError, match=r"kernel_size must be odd and positive, got 4; try 5$"):
        GMRConv2d(1, 1, 4)
