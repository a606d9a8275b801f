import doctest

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from sre import projection
from sre.bands import CONVOLUTIONS
from sre.layers import PADDING_MODES, SREConv2d, band_masks
from sre.pooling import SYMMETRIES, SidePool
from sre.projection import IrreplaceableError, project, radial, radial_transposed, unstrided
from sre.symmetry import VOLUME_ACTIONS, equivariance_error

CONVS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}


def kernel_of(*rows: tuple[float, ...]) -> Tensor:
    return torch.tensor(rows)[None, None]


# By hand


def test_weights_are_means_over_bands():
    kernel = kernel_of((1, 2, 3), (4, 5, 6), (7, 8, 9.0))
    weight, energy_kept = project(kernel, band_masks(3))
    torch.testing.assert_close(weight, torch.tensor([[[5.0, 5.0]]]))
    assert energy_kept == pytest.approx(9 * 25 / 285)


def test_a_radial_kernel_keeps_all_its_energy():
    layer = SREConv2d(2, 3, 7)
    weight, energy_kept = project(layer.kernel, band_masks(7))
    torch.testing.assert_close(weight, layer.weight.detach())
    assert energy_kept == pytest.approx(1)


def test_no_energy_is_kept_whole():
    weight, energy_kept = project(torch.zeros(1, 1, 3, 3), band_masks(3))
    assert not weight.any()
    assert energy_kept == 1


def test_a_flat_kernel_is_set_in_the_middle_of_a_cubic_one():
    conv = nn.Conv3d(1, 1, (1, 3, 3), padding=(0, 1, 1), bias=False)
    nn.init.ones_(conv.weight)
    replacement = radial(conv)
    # Of the 18 pixels around the centre, corners left out, 8 are ones.
    torch.testing.assert_close(replacement.module.weight.detach(), torch.tensor([[[1, 8 / 18]]]))
    assert replacement.energy_kept == pytest.approx((1 + 64 / 18) / 9)
    assert "zero outside its 1x3x3 pixels" in replacement.how


def test_an_even_kernel_is_fitted_over_the_means_of_cells():
    conv = nn.Conv2d(1, 1, 2, stride=2, bias=False)
    with torch.no_grad():
        conv.weight.copy_(kernel_of((1, 2), (3, 4.0)))
    replacement = radial(conv)
    # 10 times the mean of 2 x 2 pixels: a kernel of 2.5 everywhere.
    torch.testing.assert_close(replacement.module[1].weight.detach(), torch.tensor([[[10.0]]]))
    assert replacement.energy_kept == pytest.approx(4 * 2.5**2 / 30)
    wanted = "no centre pixel: fitted by a 1x1 kernel over means of 2x2 pixels"
    assert replacement.how == wanted
    x = torch.randn(1, 1, 6, 6)
    torch.testing.assert_close(replacement.module(x), 10 * F.avg_pool2d(x, 2))


def test_an_even_transposed_kernel_is_fitted_over_repeated_pixels():
    conv = nn.ConvTranspose2d(1, 1, 2, stride=2, bias=False)
    with torch.no_grad():
        conv.weight.copy_(kernel_of((1, 2), (3, 4.0)))
    replacement = radial_transposed(conv)
    torch.testing.assert_close(replacement.module[1].weight.detach(), torch.tensor([[[2.5]]]))
    nn.init.constant_(conv.weight, 2.5)
    x = torch.randn(1, 1, 3, 3)
    torch.testing.assert_close(replacement.module(x), conv(x))


def test_a_radial_even_kernel_that_can_be_made_is_kept_inside():
    # What repeating pixels twice and a radial 3 x 3 kernel can make, of stride 2.
    made = F.conv_transpose2d(SREConv2d(1, 1, 3).kernel.detach(), torch.ones(1, 1, 2, 2))
    conv = nn.ConvTranspose2d(1, 1, 4, stride=2, padding=1, bias=False)
    with torch.no_grad():
        conv.weight.copy_(made)
    replacement, x = radial_transposed(conv), torch.randn(1, 1, 5, 5)
    assert replacement.energy_kept == pytest.approx(1)
    inner = (..., slice(2, -2), slice(2, -2))
    torch.testing.assert_close(replacement.module(x)[inner], conv(x)[inner])


# Every setting: the side stays, the symmetry comes


def settled(conv: nn.Module) -> nn.Module:
    return conv.double().requires_grad_(False)


def check(conv: nn.Module, new: nn.Module, x: Tensor) -> None:
    """The new layer leaves the side that the old one left, and commutes with the symmetries."""
    dims = x.dim() - 2
    assert new(x).shape == conv(x).shape
    for action in SYMMETRIES[dims][:: 1 if dims < 3 else 11]:  # some of the 48
        assert equivariance_error(new, action, x) < 1e-12


@settings(max_examples=40)
@given(
    dims=st.sampled_from([1, 2, 2, 3]),
    kernel_size=st.integers(2, 7),
    new_size=st.sampled_from([None, 1, 3, 5, 9]),
    stride=st.integers(1, 4),
    dilation=st.integers(1, 2),
    groups=st.sampled_from([1, 2]),
    padding=st.integers(0, 3),
    padding_mode=st.sampled_from(PADDING_MODES),
    side=st.integers(17, 20),
    seed=st.integers(0, 2**16),
)
def test_a_convolution_becomes_one_that_commutes(
    dims, kernel_size, new_size, stride, dilation, groups, padding, padding_mode, side, seed
):
    torch.manual_seed(seed)
    if padding_mode != "zeros":
        new_size = None  # a larger kernel may be wider than what reflection can fill
    side = side if dims < 3 else 11
    conv = CONVS[dims](
        2, 4, kernel_size, stride, padding, dilation, groups, padding_mode=padding_mode
    )
    x = torch.randn(1, 2, *(side,) * dims, dtype=torch.float64)
    if kernel_size % 2 == 0 and (dilation > 1 or stride == 3):
        with pytest.raises(IrreplaceableError, match="an even kernel"):
            radial(conv, new_size)
        return
    replacement = radial(settled(conv), new_size)
    reach = dilation * (kernel_size // 2 if new_size is None else new_size // 2)
    if padding_mode != "zeros" and -(-(side - 2 * reach) // stride) <= reach:
        return  # nor can the smaller map be reflected as far
    check(conv, replacement.module, x)
    assert 0 <= replacement.energy_kept <= 1 + 1e-9


@settings(max_examples=40)
@given(
    dims=st.sampled_from([1, 2, 2, 3]),
    kernel_size=st.integers(1, 6),
    new_size=st.sampled_from([None, 1, 3, 5]),
    stride=st.integers(1, 4),
    groups=st.sampled_from([1, 2]),
    padding=st.integers(0, 2),
    output_padding=st.integers(0, 1),
    seed=st.integers(0, 2**16),
)
def test_a_transposed_convolution_becomes_one_that_commutes(
    dims, kernel_size, new_size, stride, groups, padding, output_padding, seed
):
    torch.manual_seed(seed)
    output_padding = min(output_padding, stride - 1)
    conv = TRANSPOSED[dims](
        2, 4, kernel_size, stride, padding, output_padding, groups, dtype=torch.float64
    )
    x = torch.randn(1, 2, *(6,) * dims, dtype=torch.float64)
    if kernel_size % 2 == 0 and stride == 3:
        with pytest.raises(IrreplaceableError, match="an even kernel"):
            radial_transposed(conv, new_size)
        return
    check(conv, radial_transposed(settled(conv), new_size).module, x)


def test_ordinary_convolutions_fail_the_same_check():
    conv, x = settled(nn.Conv2d(2, 4, 3, padding=1)), torch.randn(1, 2, 9, 9, dtype=torch.float64)
    with pytest.raises(AssertionError):
        check(conv, conv, x)
    up = settled(nn.ConvTranspose2d(2, 4, 3, 2, 1, 1))
    nn.init.ones_(up.weight)
    with pytest.raises(AssertionError):  # for its output_padding alone
        check(up, up, x)


@pytest.mark.parametrize("layer", [nn.Conv2d(2, 3, 1, stride=2), SREConv2d(2, 3, 5, 3, padding=2)])
@pytest.mark.parametrize("side", [8, 9])
def test_radial_kernels_lose_their_stride_alone(layer, side):
    layer, x = settled(layer), torch.randn(1, 2, side, side, dtype=torch.float64)
    pool, same = unstrided(layer).module
    assert torch.equal(same.weight, layer.weight)
    assert layer.stride[0] > 1  # a copy
    check(layer, nn.Sequential(pool, same), x)


def test_the_means_come_before_the_kernel():
    conv = settled(nn.Conv2d(2, 4, 3, stride=2, padding=1))
    pool, layer = radial(conv).module
    x = torch.randn(1, 2, 8, 8, dtype=torch.float64)
    assert isinstance(pool, SidePool)
    wanted = F.conv2d(F.avg_pool2d(x, 2), layer.kernel, conv.bias, padding=1)
    torch.testing.assert_close(radial(conv).module(x), wanted)


def test_a_narrower_kernel_moves_the_margin_in():
    conv = settled(nn.Conv2d(1, 1, 5))  # of 9 pixels 5 are left
    x = torch.randn(1, 1, 9, 9, dtype=torch.float64)
    narrow = radial(conv, 3)
    inner = CONVOLUTIONS[2](x[..., 1:-1, 1:-1], narrow.module[1].kernel, conv.bias)
    torch.testing.assert_close(narrow.module(x), inner)
    assert "cut off outside its middle 3x3 pixels; margin cut off before it" in narrow.how


def test_strides_follow_the_most_axes():
    conv = nn.Conv3d(1, 1, (3, 7, 7), (1, 2, 2), (1, 3, 3)).double()
    replacement = radial(conv)
    x = torch.randn(1, 1, 6, 6, 6, dtype=torch.float64)
    assert replacement.module(x).shape[2:] == (3, 3, 3)
    assert "stride 1x2x2 became a mean as by stride 2" in replacement.how
    for action in VOLUME_ACTIONS[::7]:
        assert equivariance_error(replacement.module, action, x) < 1e-12


def test_even_kernels_may_be_oblong():
    conv = settled(nn.Conv3d(1, 1, (2, 4, 4), (2, 4, 4)))
    replacement = radial(conv)
    assert replacement.module[1].kernel_size == (1, 1, 1)
    torch.testing.assert_close(replacement.module[1].weight.flatten(), conv.weight.sum()[None])


@pytest.mark.parametrize(
    ("conv", "why"),
    [
        (nn.Conv2d(1, 1, 3, (1, 2), 1), "its stride and margin differ along the axes"),
        (nn.Conv2d(1, 1, 3, 1, (0, 1)), "its stride and margin differ along the axes"),
        (nn.Conv2d(1, 1, (2, 3)), "its sides are even and odd: 2x3"),
        (nn.Conv2d(1, 1, 3, dilation=(1, 2)), "its dilation differs along the axes: 1x2"),
        (nn.Conv2d(1, 1, 2, padding="same"), "an even kernel padded to the same side"),
        (nn.Conv2d(1, 1, 2, dilation=2), "an even kernel with dilation: 2x2"),
        (nn.Conv2d(1, 1, 4, 3), "an even kernel, 4, has no middle at an odd stride"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_replaced_says_why(conv, why):
    with pytest.raises(IrreplaceableError, match=why):
        radial(conv)


def test_a_padded_kernel_of_one_pixel_cannot_lose_its_stride():
    with pytest.raises(IrreplaceableError, match="a kernel of one pixel with a margin"):
        unstrided(nn.Conv2d(1, 1, 1, stride=2, padding=1))


def test_examples_run():
    assert doctest.testmod(projection).failed == 0
