from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sre import bands
from sre.bands import band_conv, band_index, disc_rows
from sre.symmetry import GRID_ACTIONS

odd = st.integers(1, 7).map(lambda half: 2 * half + 1)  # 3 to 15


def dense_kernel(weight: Tensor, kernel_size: int, circular: bool) -> Tensor:
    """The kernel (O, C, k, k) that the bands add up to, by their definition."""
    index = torch.from_numpy(band_index(kernel_size, circular).copy())
    masks = [index == band for band in range(len(weight))]
    return torch.einsum("lco,lhw->ochw", weight, torch.stack(masks).to(weight))


def dense_conv(
    x: Tensor, weight: Tensor, bias: Tensor | None, kernel_size: int, circular: bool
) -> Tensor:
    kernel = dense_kernel(weight, kernel_size, circular)
    y = F.conv2d(x.permute(0, 3, 1, 2), kernel, bias, padding=kernel_size // 2)
    return y.permute(0, 2, 3, 1)


def case(
    *shape: int, out: int, kernel_size: int, circular: bool, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor, Tensor]:
    count = len(disc_rows(kernel_size, circular))
    x = torch.randn(*shape, dtype=dtype, requires_grad=True)
    weight = torch.randn(count, shape[-1], out, dtype=dtype, requires_grad=True)
    return x, weight, torch.randn(out, dtype=dtype, requires_grad=True)


# Bands


@pytest.mark.parametrize(
    ("kernel_size", "counts"),
    [
        (3, [1, 8]),
        (5, [1, 8, 12]),
        (7, [1, 8, 12, 16]),
        (9, [1, 8, 12, 16, 32]),
        (11, [1, 8, 12, 24, 24, 28]),
    ],
)
def test_circular_bands_have_the_authors_pixel_counts(kernel_size, counts):
    index = band_index(kernel_size)
    assert [int((index == band).sum()) for band in range(index.max() + 1)] == counts


def test_the_bands_of_a_five_by_five_kernel():
    assert band_index(5).tolist() == [
        [-1, 2, 2, 2, -1],
        [2, 1, 1, 1, 2],
        [2, 1, 0, 1, 2],
        [2, 1, 1, 1, 2],
        [-1, 2, 2, 2, -1],
    ]


@pytest.mark.parametrize("kernel_size", range(1, 17, 2))
def test_without_circular_there_is_one_band_more_and_no_pixel_left_out(kernel_size):
    index = band_index(kernel_size, circular=False)
    assert index.min() >= 0
    assert index.max() + 1 == kernel_size // 2 + 2
    corners = index == index.max()
    assert corners.sum() == (1 if kernel_size == 1 else 4)
    assert corners[0, 0]


@pytest.mark.parametrize("circular", [True, False])
@pytest.mark.parametrize("kernel_size", range(1, 17, 2))
def test_bands_are_symmetric(kernel_size, circular):
    index = torch.from_numpy(band_index(kernel_size, circular).copy())
    assert all(torch.equal(action(index), index) for action in GRID_ACTIONS)


@pytest.mark.parametrize(("kernel_size", "instead"), [(4, 5), (0, 1), (-2, 3), (-3, 4)])
def test_a_kernel_without_a_centre_is_refused(kernel_size, instead):
    message = f"kernel_size must be odd and positive, got {kernel_size}; try {instead}$"
    with pytest.raises(ValueError, match=message):
        band_index(kernel_size)


def test_nobody_can_change_the_shared_table():
    with pytest.raises(ValueError, match="read-only"):
        band_index(5)[0, 0] = 1


def test_the_rows_of_the_discs_of_a_five_by_five_kernel():
    assert disc_rows(5) == ((0,), (1, 1), (2, 2, 1))


@pytest.mark.parametrize("circular", [True, False])
@pytest.mark.parametrize("kernel_size", range(3, 17, 2))
def test_the_rows_redraw_the_discs(kernel_size, circular):
    index, half = band_index(kernel_size, circular), kernel_size // 2
    for band, rows in enumerate(disc_rows(kernel_size, circular)):
        drawn = np.zeros((kernel_size, kernel_size), bool)
        for dy, w in enumerate(rows):
            for row in (half - dy, half + dy):
                drawn[row, half - w : half + w + 1] = True
        np.testing.assert_array_equal(drawn, (index >= 0) & (index <= band))


# The convolution


@given(
    kernel_size=odd,
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    batch=st.integers(0, 3),
    channels=st.integers(1, 4),
    out=st.integers(1, 4),
    circular=st.booleans(),
    has_bias=st.booleans(),
    dtype=st.sampled_from([torch.float64, torch.float32]),
    depthwise=st.booleans(),
    small_pixels=st.sampled_from([0, 64]),
    chunk_values=st.sampled_from([1, 2**17]),
    many_weights=st.sampled_from([0, 2**18]),
    seed=st.integers(0, 2**16),
)
def test_equals_the_dense_convolution_in_values_and_gradients(
    kernel_size, height, width, batch, channels, out, circular, has_bias, dtype, depthwise,
    small_pixels, chunk_values, many_weights, seed,
):  # fmt: skip
    torch.manual_seed(seed)
    settings = {"kernel_size": kernel_size, "circular": circular}
    x, weight, bias = case(batch, height, width, channels, out=out, dtype=dtype, **settings)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bands, "SMALL_PIXELS", small_pixels)
        patch.setattr(bands, "CHUNK_VALUES", chunk_values)
        patch.setattr(bands, "MANY_WEIGHTS", many_weights)
        patch.setattr(bands, "_convolves_depthwise", lambda x: depthwise)
        assert_equals_dense(band_conv, x, weight, bias if has_bias else None, **settings)


def assert_equals_dense(
    convolve: Callable[..., Tensor],
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    kernel_size: int,
    circular: bool,
) -> None:
    """In values, with and without gradients asked for, and in all gradients."""
    given_, settings, dtype = (x, weight, bias), (kernel_size, circular), x.dtype
    wanted = [t for t in given_ if t is not None]
    expected = dense_conv(*(None if t is None else t.double() for t in given_), *settings)
    upstream = torch.randn(expected.shape, dtype=dtype)
    got = convolve(*given_, *settings)
    with torch.no_grad():
        assert_near(convolve(*given_, *settings), expected, dtype)
    grads = torch.autograd.grad(got, wanted, upstream)
    assert_near(got, expected, dtype)
    for grad, right in zip(
        grads, torch.autograd.grad(expected, wanted, upstream.double()), strict=True
    ):
        assert_near(grad, right, dtype)


def assert_near(got: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
    """To 1e-12 of the largest value in double precision, to 1e-5 in single."""
    assert got.dtype == dtype
    if expected.numel() == 0:
        assert got.shape == expected.shape
        return
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    scale = float(expected.detach().abs().amax().clamp_min(1))
    torch.testing.assert_close(got.double(), expected.double(), rtol=0, atol=tolerance * scale)


@pytest.mark.parametrize(("height", "width"), [(4, 3), (9, 10)], ids=["small", "sums"])
@pytest.mark.parametrize("circular", [True, False])
@pytest.mark.parametrize("kernel_size", [3, 5, 7])
def test_gradients_are_right(kernel_size, circular, height, width):
    settings = {"kernel_size": kernel_size, "circular": circular}
    assert torch.autograd.gradcheck(
        lambda x, w, b: band_conv(x, w, b, kernel_size, circular),
        case(2, height, width, 2, out=3, **settings),
        fast_mode=True,
    )


def test_an_unwanted_gradient_is_not_computed():
    x, weight, bias = case(1, 9, 9, 2, out=3, kernel_size=5, circular=True)
    for i, wanted in enumerate((x, weight, bias)):
        given_ = [t if t is wanted else t.detach() for t in (x, weight, bias)]
        (grad,) = torch.autograd.grad(band_conv(*given_, 5, True).sum(), [given_[i]])
        assert grad.shape == wanted.shape


def test_the_sums_have_no_second_derivative():
    x, weight, bias = case(1, 9, 9, 2, out=3, kernel_size=5, circular=True)
    y = band_conv(x, weight, bias, 5, True).square().sum()
    (grad,) = torch.autograd.grad(y, [x], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


@pytest.mark.parametrize("side", [4, 9])
def test_constants_made_while_inferring_serve_training_too(side):
    bands._small_matrix.cache_clear()
    bands._depthwise_kernels.cache_clear()
    x, weight, _ = case(1, side, side, 2, out=3, kernel_size=5, circular=True, dtype=torch.float32)
    with torch.inference_mode():
        band_conv(x, weight, None, 5, True)
    band_conv(x, weight, None, 5, True).sum().backward()
    assert weight.grad is not None


# Volumes


@given(
    kernel_size=st.sampled_from([3, 5, 7]),
    space=st.tuples(*[st.integers(1, 9)] * 3),
    batch=st.integers(0, 2),
    circular=st.booleans(),
    dtype=st.sampled_from([torch.float64, torch.float32]),
    small_pixels=st.sampled_from([0, 64]),
    chunk_values=st.sampled_from([1, 2**17]),
    seed=st.integers(0, 2**16),
)
def test_sums_over_balls_equal_the_dense_convolution_in_values_and_gradients(
    kernel_size, space, batch, circular, dtype, small_pixels, chunk_values, seed
):
    torch.manual_seed(seed)
    index = torch.from_numpy(band_index(kernel_size, circular, 3).copy())
    masks = torch.stack([index == band for band in range(int(index.max()) + 1)]).double()
    x = torch.randn(batch, *space, 2, dtype=dtype, requires_grad=True)
    weight = torch.randn(len(masks), 2, 3, dtype=dtype, requires_grad=True)
    bias = torch.randn(3, dtype=dtype, requires_grad=True)
    kernel = torch.einsum("lco,ldhw->ocdhw", weight.double(), masks)
    maps = x.double().movedim(-1, 1)
    expected = F.conv3d(maps, kernel, bias.double(), padding=kernel_size // 2).movedim(1, -1)
    upstream = torch.randn(expected.shape, dtype=dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bands, "SMALL_PIXELS", small_pixels)
        patch.setattr(bands, "CHUNK_VALUES", chunk_values)
        patch.setattr(bands, "_convolves_depthwise", lambda x: True)
        got = band_conv(x, weight, bias, kernel_size, circular)
        with torch.no_grad():
            assert_near(band_conv(x, weight, bias, kernel_size, circular), expected, dtype)
        grads = torch.autograd.grad(got, [x, weight, bias], upstream)
    assert_near(got, expected, dtype)
    exact = torch.autograd.grad(expected, [x, weight, bias], upstream.double())
    for grad, right in zip(grads, exact, strict=True):
        assert_near(grad, right, dtype)


@pytest.mark.parametrize(
    ("kernel_size", "counts"), [(1, [1]), (3, [1, 18]), (5, [1, 18, 62]), (7, [1, 26, 54, 98])]
)
def test_shells_have_the_authors_voxel_counts(kernel_size, counts):
    index = band_index(kernel_size, dims=3)
    assert [int((index == band).sum()) for band in range(index.max() + 1)] == counts


def test_bands_of_one_dimension_are_mirrored_pairs():
    assert band_index(5, dims=1).tolist() == [2, 1, 0, 1, 2]
    with pytest.raises(ValueError, match="a kernel of one dimension has no corners; leave circ"):
        band_index(5, circular=False, dims=1)
