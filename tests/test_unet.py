import pytest
import torch
from torch import Tensor, nn

from sre.models import build_model
from sre.symmetry import GRID_ACTIONS, VOLUME_ACTIONS
from sre.unet import UNet


def network(name: str, **settings) -> UNet:
    """A narrow one, with statistics in its batch-norms as if it had been trained."""
    model = build_model(name, in_channels=2, num_classes=3, width=4, **settings)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
    return model.eval().requires_grad_(False)


def error(model: UNet, action, x: Tensor) -> float:
    logits = model(x)
    return float((model(action(x)) - action(logits)).abs().amax() / logits.abs().amax())


@pytest.mark.parametrize("side", [24, 25, 26, 27, 28, 31, 33, 45])
def test_logits_of_every_pixel_turn_with_the_image(side):
    x = torch.randn(1, 2, side, side, dtype=torch.float64)
    for action in GRID_ACTIONS[1:]:
        assert error(network("sre_unet").double(), action, x) < 1e-12
        assert error(network("unet").double(), action, x) > 0.05


@pytest.mark.parametrize("size", [(24, 31), (33, 28)], ids=str)
def test_images_need_not_be_square(size):
    x = torch.randn(1, 2, *size, dtype=torch.float64)
    for action in GRID_ACTIONS[1:]:
        assert error(network("gmr_unet").double(), action, x) < 1e-12


@pytest.mark.parametrize("name", ["sre_unet_3d", "gmr_unet_3d"])
@pytest.mark.parametrize("side", [24, 25])
def test_logits_of_every_voxel_turn_with_the_volume(name, side):
    x, model = torch.randn(1, 2, side, side, side), network(name)
    for action in VOLUME_ACTIONS[1::11]:
        assert error(model, action, x) < 1e-4
    assert error(network("unet_3d"), VOLUME_ACTIONS[1], x) > 0.05


def test_levels_halve_and_come_back():
    model, x = network("sre_unet"), torch.randn(1, 2, 25, 30)
    features = model.forward_features(x)
    assert {name: tuple(maps.shape[1:]) for name, maps in features.items()} == {
        "down1": (4, 25, 30), "down2": (8, 13, 15), "down3": (16, 7, 8), "down4": (32, 4, 4),
        "up3": (16, 7, 8), "up2": (8, 13, 15), "up1": (4, 25, 30),
    }  # fmt: skip
    assert torch.equal(model.forward_head(features["up1"]), model(x))


@pytest.mark.parametrize("name", ["sre_unet", "unet", "gmr_unet", "sre_unet_3d"])
def test_fused_is_the_same_function(name):
    model = network(name)
    x = torch.randn(1, 2, *(24,) * (3 if name.endswith("3d") else 2))
    twin = model.fused()
    assert not any(isinstance(m, nn.BatchNorm2d | nn.BatchNorm3d) for m in twin.modules())
    torch.testing.assert_close(twin(x), model(x), rtol=1e-4, atol=1e-4)
