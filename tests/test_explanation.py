import copy
import importlib
import sys
import threading
from collections.abc import Callable
from functools import lru_cache
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sre.errors import SettingError, UnknownNameError
from sre.explanation import (
    METHODS,
    PACKAGE_METHODS,
    Explained,
    compute_cams,
    compute_package_cams,
    explain,
    trace,
)
from sre.models import build_model
from sre.resnet import STAGES, ResNet
from sre.symmetry import GRID_ACTIONS

GRADIENT_METHODS = [m for m in METHODS if m != "eigencam"]
CLASSES = {
    "gradcam": "GradCAM",
    "gradcam++": "GradCAMPlusPlus",
    "hirescam": "HiResCAM",
    "layercam": "LayerCAM",
    "eigencam": "EigenCAM",
}


@lru_cache
def trained(name: str) -> ResNet:
    """Make a network with random weights, whose batch-norms know the statistics of our images."""
    torch.manual_seed(0)
    model = build_model(name, in_channels=3, num_classes=5, width=4)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        model.train()(images(16))
    return model.eval()


def network(name: str = "sre_resnet18") -> ResNet:
    return copy.deepcopy(trained(name))


def images(count: int = 3) -> Tensor:
    return torch.randn(count, 3, 28, 28)


def assert_same(got: Explained, wanted: Explained) -> None:
    assert torch.equal(got.logits, wanted.logits)
    for stage in STAGES:
        assert torch.equal(got.features[stage], wanted.features[stage])
        assert torch.equal(got.cams[stage], wanted.cams[stage])


@pytest.fixture(scope="module")
def package() -> ModuleType:
    """The package as it is, taking seconds to import; its maps come out without scaling."""
    return importlib.import_module("pytorch_grad_cam")


@pytest.fixture
def raw_map(package, monkeypatch) -> Callable:
    """Have the package make one map, which it neither scales nor resizes."""
    monkeypatch.setattr(package.base_cam, "scale_cam_image", lambda cam, target_size=None: cam)

    def make(model: ResNet, x: Tensor, cam_class: str, stage: str, targets: list[int]) -> Tensor:
        wanted = [package.utils.model_targets.ClassifierOutputTarget(t) for t in targets]
        cam = getattr(package, cam_class)(copy.deepcopy(model), [])
        cam.activations_and_grads.release()
        cam.target_layers = [cam.model.get_submodule(stage)]
        cam.activations_and_grads = package.ActivationsAndGradients(
            cam.model, cam.target_layers, None
        )
        return torch.from_numpy(cam(x, wanted))

    return make


# Against the package, and by hand


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["sre_resnet18", "resnet18", "gmr_resnet50"])
def test_maps_equal_the_raw_maps_of_the_package(raw_map, name, method, stage):
    model, x, targets = network(name), images(), [4, 0, 2]
    got = explain(model, x, targets=targets, method=method).cams[stage]
    expected = raw_map(model, x, CLASSES[method], stage, targets)
    assert expected.amax() > 0
    torch.testing.assert_close(got / expected.amax(), expected / expected.amax(), rtol=0, atol=1e-5)


def test_grad_cam_of_the_last_stage_by_hand():
    model, x = network(), images(1)
    maps = model.forward_features(x)["stage4"].detach()
    # The head is an average and a linear layer: the gradient is its weight over the pixel count.
    weight = model.head.weight.detach()[2] / maps[0, 0].numel()
    expected = (weight[:, None, None] * maps[0]).sum(0).relu()
    explained = explain(model, x, targets=2)
    torch.testing.assert_close(explained.cams["stage4"][0], expected)


def test_hires_cam_before_its_relu_adds_up_to_the_logit():
    model, x = network(), images(1)
    nn.init.uniform_(model.head.weight, 0, 1)  # so that there is nothing for the ReLU to cut off
    explained = explain(model, x, targets=1, method="hirescam")
    bias = model.head.bias.detach()[1]
    torch.testing.assert_close(explained.cams["stage4"].sum(), explained.logits[0, 1] - bias)


def test_eigen_cam_takes_a_map_without_any_structure():
    model = network()
    nn.init.zeros_(model.stem[0].weight)
    assert explain(model, images(1), stages=["stem"], method="eigencam").cams["stem"].eq(0).all()


# What comes back


def test_everything_is_of_one_pass_and_detached():
    model, x = network(), images()
    explained = explain(model, x)
    with torch.no_grad():
        torch.testing.assert_close(explained.logits, model(x))
        features = model.forward_features(x)
    assert tuple(explained.features) == tuple(explained.cams) == STAGES
    for stage, maps in features.items():
        torch.testing.assert_close(explained.features[stage], maps)
        assert explained.cams[stage].shape == (3, *maps.shape[-2:])
        assert explained.cams[stage].amin() >= 0
        assert not explained.cams[stage].requires_grad
        assert not explained.features[stage].requires_grad
    assert not explained.logits.requires_grad


def test_only_the_stages_asked_for_in_the_order_asked_for():
    cams = explain(network(), images(), stages=["stage3", "stem"]).cams
    assert tuple(cams) == ("stage3", "stem")


def test_by_default_each_prediction_is_explained():
    model, x = network(), images(6)
    predictions = model(x).argmax(1)
    assert len(predictions.unique()) > 1
    assert_same(explain(model, x), explain(model, x, targets=predictions))


@pytest.mark.parametrize("targets", [[2, 2, 2], (2, 2, 2), torch.tensor([2, 2, 2])], ids=str)
def test_one_class_may_stand_for_all_images(targets):
    model, x = network(), images()
    assert_same(explain(model, x, targets=2), explain(model, x, targets=targets))


def test_targets_may_be_chosen_after_seeing_the_logits_and_more_than_once():
    model, x = network(), images()
    traced = trace(model, x)
    upright = int(traced.logits[0].argmax())
    for target in (upright, (upright + 1) % 5):
        cams = compute_cams(traced, targets=target)
        expected = explain(model, x, targets=target).cams
        assert all(torch.equal(cams[stage], expected[stage]) for stage in STAGES)


def test_no_image_gives_no_map():
    assert explain(network(), images(0)).cams["stem"].shape == (0, 28, 28)


@pytest.mark.parametrize("method", METHODS)
def test_images_of_a_batch_are_explained_apart(method):
    model, x = network().double(), images().double()
    together = explain(model, x, targets=1, method=method)
    alone = explain(model, x[1:2], targets=1, method=method)
    for stage in STAGES:
        got, wanted = together.cams[stage][1], alone.cams[stage][0]
        torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-9 * float(wanted.amax()))


# The symmetry goes through


@pytest.mark.parametrize("method", GRADIENT_METHODS)
def test_maps_turn_with_the_image(method):
    x = torch.randn(1, 3, 28, 28, dtype=torch.float64)
    orbit = torch.cat([action(x) for action in GRID_ACTIONS])

    def errors(model: ResNet) -> list[float]:
        cams = explain(model, orbit, targets=1, method=method).cams["stage2"]
        found = zip(cams, GRID_ACTIONS, strict=True)
        return [float((cam - g(cams[0])).abs().amax() / cams[0].amax()) for cam, g in found]

    assert max(errors(network().double())) < 1e-10
    assert min(errors(network("resnet18").double())[1:]) > 0.05


# The caller's model and modes


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
@pytest.mark.parametrize("is_frozen", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_works_in_any_mode_frozen_or_not(mode, is_frozen, method):
    model, x = network(), images()
    expected = explain(model, x, targets=1, method=method)
    model.requires_grad_(not is_frozen)
    with mode():
        got = explain(model, x * 1, targets=torch.tensor([1, 1, 1]), method=method)
    assert_same(got, expected)


def test_leaves_model_and_image_as_they_were():
    model, x = network(), images()
    before = copy.deepcopy(model.state_dict())
    parameters = list(model.parameters())
    explain(model, x)
    compute_package_cams(model, x, method="xgradcam", stages=["stage4"])
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    assert all(p.grad is None and p.requires_grad for p in parameters)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(m._forward_hooks or m._backward_hooks for m in model.modules())
    assert not x.requires_grad
    assert x.grad is None


def test_no_gradients_of_weights_are_computed(monkeypatch):
    wanted = []
    backward = importlib.import_module("sre.bands").BandConv.backward

    def spy(ctx, grad):
        wanted.append(ctx.needs_input_grad[:2])
        return backward(ctx, grad)

    monkeypatch.setattr("sre.bands.BandConv.backward", staticmethod(spy))
    explain(network(), images(1))
    assert set(wanted) == {(True, False)}


def test_training_mode_is_refused():
    with pytest.raises(ValueError, match=r"must be in eval mode, got training mode; call model"):
        explain(network().train(), images())


def test_a_model_made_under_inference_mode_is_refused():
    with torch.inference_mode():
        model = build_model("resnet18", in_channels=3, num_classes=5, width=4).eval()
    with pytest.raises(ValueError, match=r"made under inference_mode.*; load the model outside"):
        explain(model, images())


def in_threads(functions: list[Callable[[], None]]) -> None:
    errors, barrier = [], threading.Barrier(len(functions))

    def run(function: Callable[[], None]) -> None:
        barrier.wait()
        try:
            function()
        except BaseException as error:  # noqa: BLE001 - raised again below, in the test's thread
            errors.append(error)

    threads = [threading.Thread(target=run, args=[function]) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


@pytest.mark.parametrize("is_frozen", [False, True])
def test_threads_at_once_get_the_maps_of_one(is_frozen):
    model, batches = network(), [images() for _ in range(4)]
    model.requires_grad_(not is_frozen)
    alone = [explain(model, x) for x in batches]

    def check(i: int) -> None:
        for _ in range(3):
            assert_same(explain(model, batches[i]), alone[i])

    in_threads([lambda i=i: check(i) for i in range(4)])


@pytest.mark.parametrize("method", ["xgradcam", "ablationcam"])
def test_threads_at_once_get_the_packages_maps_of_one(package, method):
    model, batches = network(), [images(1) for _ in range(3)]

    def cam(x: Tensor) -> Tensor:
        return compute_package_cams(model, x, method=method, stages=["stage1"])["stage1"]

    alone = [cam(x) for x in batches]

    def check(i: int) -> None:
        for _ in range(2):
            assert torch.equal(cam(batches[i]), alone[i])

    in_threads([lambda i=i: check(i) for i in range(3)])


# The package's other methods


@pytest.mark.parametrize("method", PACKAGE_METHODS)
def test_the_packages_methods_give_their_raw_maps(raw_map, capfd, method):
    model, x, targets = network(), images(2), [3, 1]
    model.requires_grad_(False)
    got = compute_package_cams(
        model, x, method=method, targets=targets, stages=["stage4", "stage3"]
    )
    assert capfd.readouterr() == ("", "")  # no progress bars on the server's console
    assert tuple(got) == ("stage4", "stage3")
    model.requires_grad_(True)
    for stage, cam in got.items():
        expected = raw_map(model, x, PACKAGE_METHODS[method], stage, targets)
        scale = float(expected.amax())
        np.testing.assert_allclose(cam, expected, rtol=0, atol=1e-5 * scale)


def test_the_packages_methods_work_in_inference_mode(package):
    model, x = network(), images(1)
    expected = compute_package_cams(model, x, method="xgradcam", targets=1)
    with torch.inference_mode():
        got = compute_package_cams(model, x * 1, method="xgradcam", targets=1)
    for stage in STAGES:
        torch.testing.assert_close(got[stage], expected[stage])


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pytorch_grad_cam", None)
    message = (
        r"method 'scorecam' needs the package grad-cam, which cannot be imported \(.*\); "
        r"install it together with torch, or choose from gradcam, "
    )
    with pytest.raises(SettingError, match=message):
        compute_package_cams(network(), images(1), method="scorecam")


# What is refused


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"method": "gradcam2"}, UnknownNameError, "unknown method 'gradcam2'; choose from grad"),
        ({"stages": ["layer1"]}, UnknownNameError, "unknown stage 'layer1'; choose from stem, s"),
        ({"targets": 5}, SettingError, "target must be a class from 0 to 4, got 5$"),
        ({"targets": -1}, SettingError, "target must be a class from 0 to 4, got -1$"),
        ({"targets": [0, 1, 7]}, SettingError, r"must be a class from 0 to 4, got \[0, 1, 7\]$"),
        ({"targets": [0, 1]}, ValueError, r"targets must be one class, or 3, got \[0, 1\]$"),
        ({"targets": torch.ones(3)}, ValueError, r"targets must be one class, or 3, got tensor"),
    ],
    ids=str,
)  # fmt: skip
def test_wrong_settings_are_named(settings, error, message):
    with pytest.raises(error, match=message):
        explain(network(), images(), **settings)


def test_our_methods_are_not_the_packages():
    with pytest.raises(UnknownNameError, match="unknown method 'gradcam'; choose from xgradcam, "):
        compute_package_cams(network(), images(), method="gradcam")
