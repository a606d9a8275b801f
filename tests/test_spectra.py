import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sre import spectra
from sre.bands import band_conv
from sre.layers import SREConv2d
from sre.spectra import MOST_WEIGHTS, prefers_spectra, spectral_conv
from sre.symmetry import GRID_ACTIONS, equivariance_error
from tests.test_bands import assert_equals_dense, case

odd = st.integers(1, 7).map(lambda half: 2 * half + 1)  # 3 to 15


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
    chunk_values=st.sampled_from([1, 2**12, 2**21]),
    seed=st.integers(0, 2**16),
)
def test_equals_the_dense_convolution_in_values_and_gradients(
    kernel_size, height, width, batch, channels, out, circular, has_bias, dtype, chunk_values, seed
):
    torch.manual_seed(seed)
    settings = {"kernel_size": kernel_size, "circular": circular}
    x, weight, bias = case(batch, height, width, channels, out=out, dtype=dtype, **settings)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spectra, "CHUNK_VALUES", chunk_values)
        assert_equals_dense(spectral_conv, x, weight, bias if has_bias else None, **settings)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kernel_size", [3, 15])
@pytest.mark.parametrize("size", [(1, 224), (224, 223), (113, 64)], ids=str)
def test_equals_the_dense_convolution_at_large_sides(size, kernel_size, dtype):
    settings = {"kernel_size": kernel_size, "circular": True}
    x, weight, bias = case(1, *size, 3, out=2, dtype=dtype, **settings)
    assert_equals_dense(spectral_conv, x, weight, bias, **settings)


@pytest.mark.parametrize("circular", [True, False])
@pytest.mark.parametrize("kernel_size", [3, 5, 7])
def test_gradients_are_right(kernel_size, circular):
    assert torch.autograd.gradcheck(
        lambda x, w, b: spectral_conv(x, w, b, kernel_size, circular),
        case(2, 9, 10, 2, out=3, kernel_size=kernel_size, circular=circular),
        fast_mode=True,
    )


def test_an_unwanted_gradient_is_not_computed(monkeypatch):
    x, weight, bias = case(1, 9, 9, 2, out=3, kernel_size=5, circular=True)
    for i, wanted in enumerate((x, weight, bias)):
        given_ = [t if t is wanted else t.detach() for t in (x, weight, bias)]
        (grad,) = torch.autograd.grad(spectral_conv(*given_, 5, True).sum(), [given_[i]])
        assert grad.shape == wanted.shape
    x, weight, grad = x.detach(), weight.detach(), torch.ones(1, 9, 9, 3).double()
    monkeypatch.setattr(spectra, "_from_waves", None)  # which the gradient of x alone needs
    of_x, of_weight = spectra._gradients(x, weight, grad, 5, True, False, True)
    assert of_x is None
    assert of_weight.shape == weight.shape


def test_constants_made_while_inferring_serve_training_too():
    spectra._waves.cache_clear()
    spectra._band_spectra.cache_clear()
    x, weight, _ = case(1, 9, 9, 2, out=3, kernel_size=5, circular=True)
    with torch.inference_mode():
        spectral_conv(x, weight, None, 5, True)
    spectral_conv(x, weight, None, 5, True).sum().backward()
    assert weight.grad is not None


def test_a_spectrum_is_the_one_that_waves_meet():
    """On paper: a band of 3 x 3 sums a wave to 2 cos(w) along either axis and their product."""
    grid = spectra._Grid(6, 8, (8, 10))
    found = spectra._band_spectra(3, True, grid, torch.float64, torch.device("cpu"))
    y, x = np.meshgrid((2 * np.arange(4) + 1) / 8, (2 * np.arange(5) + 1) / 10, indexing="ij")
    y, x = (2 * np.cos(w * np.pi).ravel() for w in (y, x))
    np.testing.assert_allclose(found[:, 0], 1)
    np.testing.assert_allclose(found[:, 1], y + x + y * x)


@pytest.mark.parametrize(("side", "positions"), [(8, 10), (9, 12), (1, 4)])
def test_waves_are_orthonormal_as_far_as_the_side_goes(side, positions):
    waves = spectra._waves(side, positions, torch.float64, torch.device("cpu"))
    rows = waves.reshape(positions, side)
    torch.testing.assert_close(rows.t() @ rows, torch.eye(side, dtype=torch.float64))


# The choice


def wide_layer(**settings) -> SREConv2d:
    return SREConv2d(32, 32, 9, padding=4, **settings)


def test_a_layer_takes_what_counts_less(monkeypatch):
    taken = []

    def spy(*arguments):
        taken.append(tuple(arguments[0].shape))
        return spectral_conv(*arguments)

    monkeypatch.setattr("sre.layers.spectral_conv", spy)
    layer = wide_layer()
    wide, narrow = torch.randn(16, 32, 28, 28), torch.randn(1, 32, 200, 3)
    with torch.no_grad():
        for x in (wide, narrow):
            taken.clear()
            got = layer(x)
            assert len(taken) == prefers_spectra((len(x), *x.shape[2:], 32), 32, 9)
            expected = band_conv(
                x.movedim(1, -1).contiguous(), layer.banded, layer.bias, 9, True
            ).movedim(-1, 1)
            torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
    assert prefers_spectra((16, 28, 28, 32), 32, 9)
    assert not prefers_spectra((1, 200, 3, 32), 32, 9)


@pytest.mark.parametrize(
    ("shape", "why"),
    [
        ((0, 28, 28, 64), "nothing to do"),
        ((4, 0, 28, 64), "nothing to do"),
        ((4, 28, 28, 0), "nothing to do"),
        ((4, 16, 16, 16, 64), "volumes are summed"),
        ((512, 224, 224, 64), "the matrices of channels would fill the memory"),
    ],
)
def test_elsewhere_bands_are_summed(shape, why):
    assert not prefers_spectra(shape, 64, 9), why


def test_no_choice_makes_more_matrices_than_are_allowed():
    for side in range(8, 225, 8):
        if prefers_spectra((64, side, side, 64), 64, 15):
            positions = spectra._positions(side, 15)
            assert positions**2 // 4 * 64 * 64 <= MOST_WEIGHTS


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("action", GRID_ACTIONS[1:], ids=str)
def test_a_layer_commutes_with_grid_symmetries(action, dtype):
    layer, x = wide_layer(dtype=dtype), torch.randn(16, 32, 28, 28, dtype=dtype)
    with torch.no_grad():
        assert equivariance_error(layer, action, x) < (1e-12 if dtype == torch.float64 else 1e-5)
