"""The authors' package, sre-conv 1.0.2, as an oracle for our layers and our network."""

import importlib
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from sre.layers import SREConv2d
from sre.models import build_model
from sre.resnet import ResNet

KERNEL_SIZES = (9, 9, 5, 5)


@pytest.fixture(scope="module")
def authors() -> ModuleType:
    try:
        return importlib.import_module("SRE_Conv")
    except ImportError as error:
        pytest.skip(f"needs the authors' package (pip install sre-conv==1.0.2 torchio): {error}")


def authors_layer(authors: ModuleType, *, circular: bool, **settings) -> nn.Module:
    """Build their layer; only the base class of theirs lets the corners be kept."""

    class Layer(authors.SRE_Conv2d):
        def __init__(self):
            base = authors.sre_conv._SRE_ConvNd
            pair = authors.sre_conv._pair
            for name in ("kernel_size", "stride", "padding", "dilation"):
                if not isinstance(settings.get(name), str):
                    settings[name] = pair(settings[name])
            base.__init__(self, **settings, force_circular=circular)

    return Layer()


LAYER_SETTINGS = [
    {},
    {"stride": 2},
    {"stride": (2, 1), "padding": (3, 1)},
    {"dilation": 2},
    {"dilation": 2, "padding": "same"},
    {"groups": 4},
    {"padding": "valid"},
    {"padding": 3},
    {"padding": 2, "padding_mode": "reflect"},
    {"padding": 2, "padding_mode": "circular"},
    {"padding": 2, "padding_mode": "replicate"},
    {"bias": False},
]


@pytest.mark.parametrize("settings", LAYER_SETTINGS, ids=str)
@pytest.mark.parametrize("circular", [True, False], ids=["circular", "corners"])
@pytest.mark.parametrize("kernel_size", [3, 5, 7, 9, 11])
def test_layers_agree_with_the_authors(authors, kernel_size, circular, settings):
    settings = {
        "in_channels": 8, "out_channels": 12, "kernel_size": kernel_size, "stride": 1,
        "padding": kernel_size // 2, "dilation": 1, "groups": 1, "bias": True,
        "padding_mode": "zeros", **settings,
    }  # fmt: skip
    theirs = authors_layer(authors, circular=circular, **settings)
    ours = SREConv2d(**settings, circular=circular)
    assert ours.weight.shape == theirs.weight.shape
    assert {n for n, _ in ours.named_parameters()} == {n for n, _ in theirs.named_parameters()}
    ours.load_state_dict(dict(theirs.named_parameters()))
    x = torch.randn(2, 8, 27, 32)
    theirs.train()  # in eval mode theirs uses a kernel cached before
    with torch.no_grad():
        expected = theirs(x)
        assert (ours(x) - expected).abs().amax() < 1e-5
        ours.dense = True
        assert (ours(x) - expected).abs().amax() < 1e-5


@pytest.mark.parametrize("kernel_size", range(1, 17, 2))
@pytest.mark.parametrize("circular", [True, False], ids=["circular", "corners"])
def test_kernels_agree_with_the_authors(authors, kernel_size, circular):
    settings = {"in_channels": 2, "out_channels": 3, "kernel_size": kernel_size}
    theirs = authors_layer(authors, circular=circular, stride=1, padding=0, dilation=1, **settings)
    ours = SREConv2d(**settings, circular=circular)
    ours.load_state_dict(dict(theirs.named_parameters()))
    torch.testing.assert_close(ours.kernel, theirs._make_conv_weight(theirs.weight))


def as_ours(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the entries of their network's state; their index matrices are our masks."""
    words = {
        "conv1.1.": "conv1.",  # theirs pools inside the first convolution of a stage
        "layer": "stage",
        "bn1.": "norm1.",
        "bn2.": "norm2.",
        "downsample.1.": "shortcut.0.",
        "downsample.2.": "shortcut.1.",
        "fc.": "head.",
    }
    renamed = {}
    for name, value in state.items():
        if name.endswith("weight_index_mat"):
            continue
        if name.startswith(("conv1.", "bn1.")):
            renamed["stem." + name.replace("conv1.", "0.").replace("bn1.", "1.")] = value
            continue
        for word, ours in words.items():
            name = name.replace(word, ours)
        renamed[name] = value
    return renamed


@pytest.fixture(scope="module")
def networks(authors) -> tuple[nn.Module, ResNet]:
    torch.manual_seed(0)
    theirs = authors.sre_resnet18(
        num_classes=9, inplanes=16, skip_first_maxpool=True, sre_conv_size=list(KERNEL_SIZES)
    )
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
    ours = build_model(
        "sre_resnet18", in_channels=3, num_classes=9, width=16, kernel_sizes=KERNEL_SIZES
    )
    ours.load_state_dict(as_ours(theirs.state_dict()))
    return theirs.eval(), ours.eval()


@pytest.mark.parametrize("side", [32, 64])
def test_logits_agree_with_the_authors(networks, side):
    theirs, ours = networks
    x = torch.randn(4, 3, side, side)
    with torch.no_grad():
        expected, got = theirs(x), ours(x)
    assert (got - expected).abs().amax() < 1e-4 * expected.abs().amax().clamp_min(1)
    assert expected.std() > 1e-2


def test_where_sides_do_not_halve_evenly_only_ours_stays_exact(networks):
    def error(model: nn.Module, side: int) -> float:
        x = torch.randn(2, 3, side, side)
        with torch.no_grad():
            before, after = model(x), model(torch.rot90(x, 1, (-2, -1)))
        return float((after - before).abs().amax() / before.abs().amax())

    theirs, ours = networks
    assert error(theirs, 32) < 1e-5
    assert error(theirs, 28) > 1e-4
    assert error(ours, 32) < 1e-5
    assert error(ours, 28) < 1e-5


def test_training_gradients_agree_with_the_authors(networks):
    theirs, ours = networks
    x = torch.randn(2, 3, 32, 32)
    theirs_named = dict(theirs.train().named_parameters())
    theirs.apply(lambda m: m.eval() if isinstance(m, nn.BatchNorm2d) else None)
    expected = dict(
        zip(
            theirs_named,
            torch.autograd.grad(theirs(x).square().sum(), list(theirs_named.values())),
            strict=True,
        )
    )
    theirs.eval()
    names, parameters = zip(*ours.named_parameters(), strict=True)
    got = dict(zip(names, torch.autograd.grad(ours(x).square().sum(), parameters), strict=True))
    expected = as_ours(expected)
    assert set(got) == set(expected)
    for name, grad in got.items():
        scale = expected[name].abs().amax()
        assert (grad - expected[name]).abs().amax() < 1e-4 * scale, name


def test_parameters_agree_with_the_authors(authors):
    theirs = authors.sre_resnet18(
        num_classes=9, skip_first_maxpool=True, sre_conv_size=list(KERNEL_SIZES)
    )
    ours = build_model("sre_resnet18", in_channels=3, num_classes=9)
    count = sum(p.numel() for p in theirs.parameters())
    assert count == sum(p.numel() for p in ours.parameters()) == 3_996_105
