"""The networks outside eager PyTorch: fused, compiled, exported, traced, in ONNX Runtime."""

import copy
import importlib
import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from sre.resnet import ResNet
from tests.compiled import WIDTH, error
from tests.test_resnet import network

NAMES = ("sre_resnet18", "resnet18", "gmr_resnet18")
pytestmark = pytest.mark.filterwarnings(
    # PyTorch's own exporters warn about PyTorch's own deprecations.
    "ignore::DeprecationWarning",
    "ignore::FutureWarning",
    "ignore::UserWarning",
)


@pytest.fixture(scope="module", params=NAMES)
def model(request) -> ResNet:
    torch.manual_seed(0)
    return network(request.param, width=WIDTH)


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(3, 2, 28, 28, generator=torch.Generator().manual_seed(0))


# Batch-norm folded


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_fused_is_the_same_function_at_every_stage(model, images, dtype):
    model, images = copy.deepcopy(model).to(dtype), images.to(dtype)
    expected, got = model.forward_features(images), model.fused().forward_features(images)
    for stage in expected:
        assert error(got[stage], expected[stage]) < (1e-12 if dtype == torch.float64 else 1e-5)
    assert error(model.fused()(images), model(images)) < (1e-11 if dtype == torch.float64 else 1e-4)


@pytest.mark.parametrize("name", ["sre_resnet50", "gmr_resnet50", "resnet34"])
def test_fused_deeper_networks_are_the_same_function(name, images):
    model, x = network(name, width=WIDTH).double(), images.double()
    assert error(model.fused()(x), model(x)) < 1e-11


def test_fused_leaves_the_network_alone(model, images):
    model = copy.deepcopy(model).train().requires_grad_(True)
    before = copy.deepcopy(model.state_dict())
    twin = model.fused()
    assert model.training
    assert all(p.requires_grad for p in model.parameters())
    assert before.keys() == model.state_dict().keys()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not twin.training
    assert not any(p.requires_grad for p in twin.parameters())
    assert not any(isinstance(module, nn.BatchNorm2d) for module in twin.modules())
    shared = {p.data_ptr() for p in model.parameters()} & {p.data_ptr() for p in twin.parameters()}
    assert not shared
    # And what happens to the one later does not reach the other.
    expected = twin(images)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert torch.equal(twin(images), expected)


def test_fused_passes_gradients_on_to_the_image(model, images):
    grads, model = [], copy.deepcopy(model).double()
    for each in (model, model.fused()):
        x = images.double().requires_grad_()
        grads.append(torch.autograd.grad(each(x).square().sum(), x)[0])
    assert error(grads[1], grads[0]) < 1e-9


def test_fused_twice_is_fused_once(model, images):
    assert torch.equal(model.fused().fused()(images), model.fused()(images))


# Compilers and exporters


def test_exported_for_any_batch(model, images):
    batch = torch.export.Dim("batch", min=1, max=512)
    program = torch.export.export(
        model.fused(), (images,), dynamic_shapes={"x": {0: batch}}, strict=False
    )
    for some in (images, images[:2]):
        assert error(program.module()(some), model(some)) < 1e-4


# Each takes ten seconds and more: some for every change, all when asked for.
QUICK = {("sre_resnet18", "exported"), ("sre_resnet18", "traced"), ("resnet18", "exported")}
COMPILED = [
    pytest.param(name, how, marks=[] if (name, how) in QUICK else pytest.mark.slow)
    for name in NAMES
    for how in ("exported", "traced", "aot_eager", "inductor")
]


@pytest.mark.parametrize(("name", "how"), COMPILED)
def test_compiled_it_does_the_same(name, how):
    found = subprocess.run(
        [sys.executable, "-m", "tests.compiled", name, how],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parent.parent,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr[-2000:]
    errors = json.loads(found.stdout.splitlines()[-1])
    assert errors
    assert max(errors) < 1e-3


# Not even a network of PyTorch's own layers, with today's onnxscript or that of its time.
@pytest.mark.skipif(
    torch.__version__.startswith("2.8."), reason="PyTorch 2.8 exports no batch of any size"
)
@pytest.mark.parametrize("opset", [17, pytest.param(20, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "model",
    [NAMES[0], *(pytest.param(name, marks=pytest.mark.slow) for name in NAMES[1:])],
    indirect=True,
)
def test_onnx_runtime_gives_the_same_logits(model, images, opset, tmp_path):
    runtime = importlib.import_module("onnxruntime")
    path: Path = tmp_path / "network.onnx"
    torch.onnx.export(
        model.fused(), (images,), path, opset_version=opset, dynamo=True, verbose=False,
        dynamic_shapes={"x": {0: torch.export.Dim("batch")}}, external_data=False,
    )  # fmt: skip
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for some in (images, images[:2]):
        (logits,) = session.run(None, {session.get_inputs()[0].name: some.numpy()})
        assert error(torch.from_numpy(logits), model(some)) < 1e-4


# Many callers


def test_one_network_serves_many_threads(model, images):
    expected, fused, found = model(images), model.fused(), {}

    def serve(name: int) -> None:
        with torch.inference_mode(name % 2 == 0):
            found[name] = fused(images)

    threads = [threading.Thread(target=serve, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert all(error(logits, expected) < 1e-4 for logits in found.values())
