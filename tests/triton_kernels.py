"""The kernels for a GPU, against the dense kernel: interpreted, where there is no GPU.

Run by test_triton_bands.py, in a process of its own.
"""

import pytest
import torch

from sre import triton_bands as kernels
from sre.bands import band_conv
from sre.layers import SREConv2d, band_masks

HAS_GPU = torch.cuda.is_available()
DEVICE = "cuda" if HAS_GPU else "cpu"

SIZES = [
    # batch, space, channels in and out, kernel side
    (1, (9, 9), 8, 8, 3),
    (2, (7, 5), 20, 3, 7),
    (1, (9, 8), 40, 33, 5),
    (1, (4, 5), 1, 17, 15),
    (2, (1, 1), 16, 16, 9),
    (2, (4, 5, 6), 5, 9, 3),
    (1, (30,), 12, 20, 11),
]


def inputs(batch, space, channels, out_channels, kernel_size, circular=True, dtype=torch.float32):
    torch.manual_seed(0)
    bands = len(band_masks(kernel_size, circular=circular, dims=len(space)))
    x = torch.randn(batch, *space, channels, dtype=dtype, device=DEVICE)
    weight = torch.randn(bands, channels, out_channels, dtype=dtype, device=DEVICE)
    bias = torch.randn(out_channels, dtype=dtype, device=DEVICE)
    return [values.requires_grad_() for values in (x, weight, bias)]


def dense(x, weight, bias, kernel_size, circular):
    dims = x.dim() - 2
    masks = band_masks(kernel_size, circular=circular, dims=dims).to(weight)
    kernel = torch.einsum("bio,b...->oi...", weight, masks)
    convolve = {1: torch.conv1d, 2: torch.conv2d, 3: torch.conv3d}[dims]
    return convolve(x.movedim(-1, 1), kernel, bias, padding=kernel_size // 2).movedim(1, -1)


def relative(found, expected):
    return float(((found - expected).abs().max() / expected.abs().max()).detach())


CASES = [(size, True) for size in SIZES] + [(SIZES[0], False), (SIZES[5], False)]


@pytest.mark.parametrize(("size", "circular"), CASES, ids=str)
def test_values_and_gradients_are_those_of_the_dense_kernel(size, circular):
    given = inputs(*size, circular)
    exact = [values.detach().double().requires_grad_() for values in given]
    with torch.backends.cudnn.flags(allow_tf32=False):
        found = kernels.fused_band_conv(*given, size[-1], circular)
        expected = dense(*exact, size[-1], circular)
        assert found.shape == expected.shape
        assert relative(found.double(), expected) < 1e-5
        towards = torch.randn_like(found)
        of_found = torch.autograd.grad(found, given, towards)
        of_expected = torch.autograd.grad(expected, exact, towards.double())
    for one, other in zip(of_found, of_expected, strict=True):
        assert relative(one.double(), other) < 1e-5


HALVES = [(torch.float16, 4e-3)]
if HAS_GPU:  # the interpreter knows no products of bfloat16
    HALVES.append((torch.bfloat16, 3e-2))


@pytest.mark.parametrize(("dtype", "bound"), HALVES)
def test_half_precision_differs_by_its_rounding_alone(dtype, bound):
    given = inputs(2, (9, 8), 24, 20, 5, dtype=dtype)
    exact = [values.detach().double() for values in given]
    found = kernels.fused_band_conv(*given, 5, True)
    assert found.dtype == dtype
    assert relative(found.double(), dense(*exact, 5, True)) < bound
    gradients = torch.autograd.grad(found.sum(), given)
    assert [g.dtype for g in gradients] == [dtype] * 3


def test_an_empty_batch_has_an_empty_answer_and_no_gradient():
    x, weight, bias = inputs(0, (6, 6), 8, 8, 5)
    y = kernels.fused_band_conv(x, weight, bias, 5, True)
    assert y.shape == (0, 6, 6, 8)
    (gradient,) = torch.autograd.grad(y.sum(), [weight])
    assert not gradient.any()


def test_it_is_the_function_of_the_cpu_path_at_inference_too():
    given = [values.detach() for values in inputs(2, (16, 16), 16, 16, 9)]
    with torch.inference_mode(), torch.backends.cudnn.flags(allow_tf32=False):
        found = kernels.fused_band_conv(*given, 9, True).cpu()
    expected = band_conv(*(values.cpu() for values in given), 9, True)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)


@pytest.mark.skipif(HAS_GPU, reason="is about machines without a GPU")
def test_without_a_gpu_nothing_is_faster_and_nothing_breaks():
    cpu = torch.device("cpu")
    layer = kernels.Layer((2, 8, 9, 9), False, 8, 5, True, torch.float32, cpu, trains=False)
    assert not kernels.is_faster(layer)


def test_tensor_cores_are_taken_where_cudnn_may(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    assert kernels._precision(torch.bfloat16) == "ieee"
    assert kernels._precision(torch.float32) == "tf32"
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    assert kernels._precision(torch.float32) == "ieee"


@pytest.mark.skipif(not HAS_GPU, reason="needs a CUDA GPU")
@pytest.mark.parametrize("autocast", [False, True])
def test_the_layer_on_a_gpu_is_the_layer_on_a_cpu(autocast, monkeypatch):
    monkeypatch.setattr(kernels, "is_faster", lambda _: True)
    layer, x = SREConv2d(16, 16, 9, padding="same"), torch.randn(4, 16, 32, 32)
    expected = layer(x)
    of_expected = torch.autograd.grad(expected.square().sum(), [*layer.parameters()])
    layer, x = layer.cuda(), x.cuda()
    cast = torch.autocast("cuda", torch.bfloat16, enabled=autocast)
    with cast, torch.backends.cudnn.flags(allow_tf32=False):
        assert layer.takes_band_sums(x)
        found = layer(x)
        of_found = torch.autograd.grad(found.float().square().sum(), [*layer.parameters()])
    bound = 3e-2 if autocast else 1e-5
    assert relative(found.float().cpu(), expected) < bound
    for one, other in zip(of_found, of_expected, strict=True):
        assert relative(one.cpu(), other) < 10 * bound


@pytest.mark.skipif(not HAS_GPU, reason="needs a CUDA GPU")
@pytest.mark.parametrize("trains", [False, True])
def test_both_ways_run_when_they_are_timed(trains, monkeypatch):
    times = []
    measured = kernels._time_ms
    monkeypatch.setattr(kernels, "_time_ms", lambda *a: times.append(measured(*a)) or times[-1])
    device = torch.device("cuda", 0)
    layer = kernels.Layer((2, 8, 9, 9), False, 8, 5, True, torch.float32, device, trains)
    kernels._contest(layer)
    assert len(times) == 2
    assert min(times) > 0
