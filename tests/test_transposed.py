import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from sre.symmetry import GRID_ACTIONS, VOLUME_ACTIONS, equivariance_error
from sre.transposed import SREConvTranspose1d, SREConvTranspose2d, SREConvTranspose3d

LAYERS = {
    1: (SREConvTranspose1d, nn.ConvTranspose1d),
    2: (SREConvTranspose2d, nn.ConvTranspose2d),
    3: (SREConvTranspose3d, nn.ConvTranspose3d),
}


def mirror(x: Tensor) -> Tensor:
    return x.flip(-1)


ACTIONS = {1: (mirror,), 2: GRID_ACTIONS[1:], 3: VOLUME_ACTIONS[1::7]}


@given(
    dims=st.sampled_from([1, 2, 3]),
    kernel_size=st.sampled_from([1, 3, 5]),
    stride=st.integers(1, 3),
    padding=st.integers(0, 2),
    extra=st.integers(0, 2),
    groups=st.sampled_from([1, 2]),
    bias=st.booleans(),
    dilation=st.integers(1, 2),
    side=st.integers(3, 6),
    seed=st.integers(0, 2**16),
)
def test_equals_an_ordinary_layer_with_its_kernel(
    dims, kernel_size, stride, padding, extra, groups, bias, dilation, side, seed
):
    torch.manual_seed(seed)
    ours, theirs = LAYERS[dims]
    output_padding = min(extra, max(stride, dilation) - 1)
    arguments = (4, 6, kernel_size, stride, padding, output_padding, groups, bias, dilation)
    layer = ours(*arguments, dtype=torch.float64)
    plain = theirs(*arguments, dtype=torch.float64)
    plain.load_state_dict({**layer.state_dict(), "weight": layer.kernel.detach()})
    x = torch.randn(2, 4, *(side,) * dims, dtype=torch.float64)
    try:
        expected = plain(x)
    except RuntimeError:  # nothing is left of so small an image
        with pytest.raises(RuntimeError):
            layer(x)
        return
    torch.testing.assert_close(layer(x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("dims", LAYERS)
def test_commutes_with_every_grid_symmetry_unless_one_side_gets_more(dims, stride):
    ours, plain = LAYERS[dims]
    settings = {"kernel_size": 3, "stride": stride, "padding": 1, "dtype": torch.float64}
    x = torch.randn(1, 2, *(7,) * dims, dtype=torch.float64)
    for action in ACTIONS[dims]:
        assert equivariance_error(ours(2, 3, **settings), action, x) < 1e-12
        assert equivariance_error(plain(2, 3, **settings), action, x) > 0.1
    if stride > 1:
        lopsided = ours(2, 3, **settings, output_padding=1)
        assert max(equivariance_error(lopsided, a, x) for a in ACTIONS[dims]) > 0.1


@pytest.mark.parametrize("dims", LAYERS)
def test_output_sizes_can_be_asked_for(dims):
    ours, plain = LAYERS[dims]
    layer, like = (make(2, 3, 3, stride=2, padding=1) for make in (ours, plain))
    x = torch.randn(1, 2, *(5,) * dims)
    for side in (9, 10):
        wanted = [side] * dims
        assert layer(x, wanted).shape == like(x, wanted).shape == (1, 3, *wanted)
    with pytest.raises(
        ValueError, match=r"^output_size must lie between \[9.*\] and \[10.*\], got"
    ):
        layer(x, [11] * dims)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kernel_size": 4}, r"kernel_size must be odd and positive, got 4; try 5$"),
        ({"padding_mode": "reflect"}, r"pads with zeros only, got 'reflect'; leave padding_mode"),
        ({"padding": "same"}, r"padding of a transposed convolution must be numbers, got 'same';"),
        ({"groups": 3}, r"groups must divide in_channels and out_channels, got 3 for 8 and 4; "),
    ],
    ids=str,
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        SREConvTranspose2d(8, 4, **{"kernel_size": 5, **settings})
