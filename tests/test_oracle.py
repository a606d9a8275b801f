"""The authors' packages, sre-conv 1.0.2 and GMR-Conv 1.0.3, as oracles for layers and networks.

What their packages cannot do at all is compared with nothing: layers of one dimension and
transposed ones raise there. tests/test_authors.py compares the networks, through their files.
"""

import importlib
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from sre.gmr import GMRConv2d, GMRConv3d
from sre.layers import RadialConv, SREConv2d, SREConv3d
from sre.models import build_model
from sre.resnet import ResNet

KERNEL_SIZES = (9, 9, 5, 5)
OURS = {
    ("sre", 2): SREConv2d, ("sre", 3): SREConv3d, ("gmr", 2): GMRConv2d, ("gmr", 3): GMRConv3d,
}  # fmt: skip


def package(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        pytest.skip(f"needs the authors' packages (sre-conv, GMR-Conv and torchio): {error}")


@pytest.fixture(scope="module")
def authors() -> ModuleType:
    return package("SRE_Conv")


def authors_layer(family: str, dims: int, *, circular: bool = True, **settings) -> nn.Module:
    """Build their layer; of SRE-Conv only the base class lets the corners be kept."""
    if family == "gmr":
        layer = getattr(package("GMR_Conv"), f"GMR_Conv{dims}d")(
            **settings, force_circular=circular
        )
        # Their quick way crashes with groups and passes over padding_mode; the dense one does not.
        # Their argument of this name ends up in another, so that only this turns it off.
        layer.dw_fwd = False
        return layer
    code = package("SRE_Conv").sre_conv
    each_axis = {2: code._pair, 3: code._triple}[dims]

    class Layer(getattr(code, f"SRE_Conv{dims}d")):
        def __init__(self):
            for name in ("kernel_size", "stride", "padding", "dilation"):
                if not isinstance(settings.get(name), str):
                    settings[name] = each_axis(settings[name])
            code._SRE_ConvNd.__init__(self, **settings, force_circular=circular)

    return Layer()


def load(ours: RadialConv, theirs: nn.Module) -> None:
    """Take over all that they learn, under our names."""
    named = {n.replace("log_sigmas", "log_sigma"): p for n, p in theirs.named_parameters()}
    assert {n: p.shape for n, p in ours.named_parameters()} == {
        n: p.shape for n, p in named.items()
    }
    ours.load_state_dict(named)


LAYER_SETTINGS = [
    {},
    {"stride": 2},
    {"padding": 1},
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
@pytest.mark.parametrize(
    ("family", "dims", "kernel_size"),
    [(f, d, k) for f, d in OURS for k in ((3, 5, 7, 9, 11) if d == 2 else (3, 5))],
)
def test_layers_agree_with_the_authors(family, dims, kernel_size, circular, settings):
    settings = {
        "in_channels": 8, "out_channels": 12, "kernel_size": kernel_size, "stride": 1,
        "padding": kernel_size // 2, "dilation": 1, "groups": 1, "bias": True,
        "padding_mode": "zeros", **settings,
    }  # fmt: skip
    theirs = authors_layer(family, dims, circular=circular, **settings)
    ours = OURS[family, dims](**settings, circular=circular)
    if family == "gmr":
        nn.init.normal_(theirs.log_sigmas, mean=-0.5, std=0.5)
    load(ours, theirs)
    space = (27, 32) if dims == 2 else (11, 9, 10)
    x = torch.randn(2, 8, *space, requires_grad=True)
    theirs.train()  # in eval mode theirs uses a kernel cached before
    expected = theirs(x)
    upstream = torch.randn_like(expected)
    wanted = torch.autograd.grad(expected, [x, *theirs.parameters()], upstream)
    names = ["x", *(n.replace("log_sigmas", "log_sigma") for n, _ in theirs.named_parameters())]
    for ours.dense in (False, True):
        got = ours(x)
        assert (got - expected).abs().amax() < 1e-5
        own = dict(ours.named_parameters(), x=x)
        grads = torch.autograd.grad(got, [own[name] for name in names], upstream)
        for name, grad, right in zip(names, grads, wanted, strict=True):
            assert (grad - right).abs().amax() < 1e-4 * right.abs().amax().clamp_min(1), name


@pytest.mark.parametrize("settings", [{}, {"stride": 2}, {"bias": False}], ids=str)
def test_the_authors_quick_way_agrees_too(settings):
    settings = {"in_channels": 8, "out_channels": 4, "kernel_size": 5, "padding": 2, **settings}
    theirs, ours = package("GMR_Conv").GMR_Conv2d(**settings), GMRConv2d(**settings)
    load(ours, theirs)
    x = torch.randn(2, 8, 20, 21)
    with torch.no_grad():
        assert (ours(x) - theirs(x)).abs().amax() < 1e-5


@pytest.mark.parametrize("kernel_size", range(1, 17, 2))
@pytest.mark.parametrize("circular", [True, False], ids=["circular", "corners"])
def test_kernels_agree_with_the_authors(kernel_size, circular):
    settings = {"in_channels": 2, "out_channels": 3, "kernel_size": kernel_size}
    theirs = authors_layer("sre", 2, circular=circular, stride=1, padding=0, dilation=1, **settings)
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
