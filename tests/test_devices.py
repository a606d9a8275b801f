"""Opening the device that networks run on."""

import pytest
import torch

from sre.devices import open_device
from sre.models import build_model

HAS_GPU = torch.cuda.is_available()


def test_a_cpu_is_there_and_its_settings_stay():
    before = torch.backends.cudnn.allow_tf32
    open_device("cpu")
    assert torch.backends.cudnn.allow_tf32 == before


@pytest.mark.skipif(HAS_GPU, reason="is about machines without a GPU")
def test_a_device_that_is_not_there_is_refused_and_nothing_changes():
    before = torch.backends.cudnn.allow_tf32
    with pytest.raises((RuntimeError, AssertionError)):
        open_device("cuda")
    assert torch.backends.cudnn.allow_tf32 == before


@pytest.mark.skipif(not HAS_GPU, reason="needs a CUDA GPU")
@pytest.mark.parametrize("model", ["sre_resnet18", "gmr_resnet18"])
def test_on_a_gpu_quarter_turns_change_nothing_but_rounding(model, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    open_device("cuda")
    network = build_model(model, in_channels=3, num_classes=8, width=64).eval().fused().cuda()
    x = torch.randn(4, 3, 28, 28, device="cuda")
    with torch.inference_mode():
        upright, turned = network(x), network(x.rot90(1, (-2, -1)))
    assert (upright - turned).abs().max() < 1e-5 * upright.abs().max()
