import copy
import doctest
import pickle
from collections.abc import Callable, Iterator
from dataclasses import FrozenInstanceError
from typing import NamedTuple

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torchvision.models import get_model

from sre import conversion
from sre.conversion import ConversionReport, convert
from sre.invariance import invariance_error
from sre.layers import RadialConv, SREConv1d, SREConv2d, SREConv3d
from sre.pooling import OrbitMean, SidePool
from sre.symmetry import VOLUME_ACTIONS, grid_action

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Maps are too small here for a second one, which on shared cores is waited for instead."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def from_torchvision(name: str, **settings) -> Callable[[], nn.Module]:
    return lambda: get_model(name, weights=None, num_classes=5, **settings)


def from_timm(name: str) -> Callable[[], nn.Module]:
    return lambda: timm.create_model(name, num_classes=5)


def narrow_vgg() -> nn.Module:
    """VGG-11 with a narrow head, over the same 7 x 7 map."""
    model = from_torchvision("vgg11_bn", init_weights=False)()
    model.classifier = nn.Sequential(nn.Linear(512 * 49, 16), nn.ReLU(True), nn.Linear(16, 5))
    return model


NETWORKS = {
    "resnet50": from_torchvision("resnet50"),
    "mobilenet_v3_large": from_torchvision("mobilenet_v3_large"),
    "efficientnet_b0": from_torchvision("efficientnet_b0"),
    "timm_convnext_atto": from_timm("convnext_atto"),
    "vgg11_bn_narrow": narrow_vgg,
    "r3d_18": from_torchvision("r3d_18"),
    "densenet121": from_torchvision("densenet121"),
    "vgg11_bn": from_torchvision("vgg11_bn"),
    "convnext_tiny": from_torchvision("convnext_tiny"),
    "timm_convnext_tiny": from_timm("convnext_tiny"),
    "timm_efficientnet_b0": from_timm("efficientnet_b0"),
    "r2plus1d_18": from_torchvision("r2plus1d_18"),
}
QUICK = tuple(NETWORKS)[:6]
ON_VOLUMES = ("r3d_18", "r2plus1d_18")


def images(name: str, side: int, count: int = 1) -> Tensor:
    """Blots and noise: pools would leave nothing of noise alone."""
    dims = 3 if name in ON_VOLUMES else 2
    blots = torch.randn(count, 3, *(4,) * dims)
    smooth = F.interpolate(blots, (side,) * dims, mode="trilinear" if dims == 3 else "bilinear")
    return smooth + 0.3 * torch.randn_like(smooth)


def settle(model: nn.Module, x: Tensor) -> nn.Module:
    """Give batch-norms the statistics of a batch, so that maps do not fade with the depth."""
    norms = [module for module in model.modules() if isinstance(module, NORMS)]
    for norm in norms:
        norm.momentum = None
        norm.reset_running_stats()
    with torch.no_grad():
        model.train()(x)
    for norm in norms:  # and none so small that it would blow up what is rounded
        norm.running_var += 0.3 * norm.running_var.mean()
    return model.eval()


class Converted(NamedTuple):
    name: str
    model: nn.Module
    twin: nn.Module
    report: ConversionReport

    def images(self, side: int, volume_side: int, count: int = 1) -> Tensor:
        return images(self.name, volume_side if self.name in ON_VOLUMES else side, count)


@pytest.fixture(
    scope="module",
    params=[pytest.param(n, marks=[] if n in QUICK else pytest.mark.slow) for n in NETWORKS],
)
def network(request) -> Converted:
    """A network that answers differently to different images, what it becomes, and the report."""
    torch.manual_seed(0)
    name = request.param
    batch = images(name, 9 if name in ON_VOLUMES else 64, 4)
    model = settle(NETWORKS[name](), batch)
    twin, report = convert(model, example=images(name, 7 if name in ON_VOLUMES else 45))
    return Converted(name, model, settle(twin, batch), report)


# Networks as they are used


def test_networks_become_invariant(network):
    assert network.report.is_exact, str(network.report)
    assert network.report.error < 1e-4
    assert network.report.kept == ()
    assert invariance_error(network.model, network.images(45, 10)) > 1e-3  # measured: from 0.01 on


@pytest.mark.parametrize(("side", "volume_side"), [(32, 7), (33, 8), (45, 10), (64, 11)], ids=str)
def test_they_are_so_at_every_side(network, side, volume_side):
    # Measured: up to 2e-6.
    assert invariance_error(network.twin, network.images(side, volume_side)) < 1e-4


@pytest.mark.parametrize("network", ["mobilenet_v3_large", "resnet50"], indirect=True)
def test_they_are_so_at_the_side_they_are_trained_at(network):
    x = network.images(224, 112)
    assert invariance_error(network.twin, x) < 1e-4
    assert invariance_error(network.model, x) > 1e-3


def test_they_still_tell_images_apart(network):
    with torch.no_grad():
        logits = network.twin(network.images(45, 10, 3))
    spread = (logits - logits[:1]).abs().amax() / logits.abs().amax()
    assert spread > 0.02  # measured: from 0.07 on


def test_each_changed_layer_has_a_row(network):
    new = dict(network.twin.named_modules())
    rows = {row.name: row for row in network.report.changed}
    assert len(rows) == len(network.report.changed)
    for name, module in network.model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d):
            changes = max(module.kernel_size) > 1 or max(module.stride) > 1
            assert (name in rows) == changes
            assert (type(new[name]) is type(module)) != changes
            if max(module.kernel_size) > 1:
                assert 0 < rows[name].energy_kept < 1
        if isinstance(module, nn.MaxPool2d | nn.AvgPool2d):
            assert rows[name].after == "SidePool"
            assert rows[name].energy_kept is None
    assert all(name in str(network.report) for name in rows)


@pytest.mark.parametrize("network", ["r3d_18"], indirect=True)
def test_a_cubic_kernel_replaces_one_that_is_flat_in_time(network):
    row = network.report.changed[0]
    assert row.before == "Conv3d 3x7x7, stride 1x2x2"
    assert row.after == "SidePool, SREConv3d 7x7x7"
    x = network.images(45, 10)
    with torch.no_grad():
        logits = torch.cat([network.twin(action(x)) for action in VOLUME_ACTIONS[::5]])
    assert (logits - logits[:1]).abs().amax() < 1e-4 * logits.abs().amax()


@pytest.mark.parametrize("network", ["vgg11_bn_narrow"], indirect=True)
def test_the_map_that_vgg_flattens_is_averaged(network):
    mean, linear = network.twin.classifier[0]
    assert isinstance(mean, OrbitMean)
    assert mean.side == 7
    row = network.report.changed[-1]
    assert (row.name, row.after) == ("classifier.0", "OrbitMean, Linear 25088 to 16")
    with torch.no_grad():
        kept = (mean(linear.weight).norm() / linear.weight.norm()) ** 2
    assert row.energy_kept == pytest.approx(float(kept))


# What stays, and what is told


def small(**settings) -> nn.Sequential:
    """A network with a part of each kind."""
    settings = {"padding": 1, **settings}
    return nn.Sequential(
        nn.Conv2d(2, 4, 5, stride=2, padding=2), nn.BatchNorm2d(4), nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2, 1), nn.Conv2d(4, 4, 3, groups=4, **settings), nn.AvgPool2d(2),
        nn.Conv2d(4, 6, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3),
    )  # fmt: skip


def test_the_original_is_left_alone():
    model = small()
    before, modules = copy.deepcopy(model.state_dict()), list(model.modules())
    twin, _ = convert(model)
    assert list(model.modules()) == modules
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert not {id(p) for p in model.parameters()} & {id(p) for p in twin.parameters()}
    assert model.training
    assert not any(module._forward_hooks for module in (*model.modules(), *twin.modules()))


def test_modes_types_and_frozen_parameters_stay():
    model = small().double()
    model[0].eval()
    model[0].weight.requires_grad_(False)
    model[4].bias.requires_grad_(False)
    twin, _ = convert(model)
    assert twin.training
    assert not any(module.training for module in twin[0].modules())
    assert twin[4].training
    assert {p.dtype for p in twin.parameters()} == {torch.float64}
    assert not twin[0][1].weight.requires_grad
    assert twin[0][1].bias.requires_grad
    assert twin[4].weight.requires_grad
    assert not twin[4].bias.requires_grad


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_precisions_are_measured_in_single(dtype):
    twin, report = convert(narrow_head().to(dtype))
    assert report.is_exact
    assert report.changed[-1].name == "fc"
    assert {p.dtype for p in twin.parameters()} == {dtype}
    x = torch.randn(1, 1, 28, 28, dtype=dtype)
    assert twin(x).dtype == dtype


def test_what_is_not_a_kernel_stays_as_it_is():
    model = small(padding_mode="reflect", dilation=2)
    twin, _ = convert(model)
    assert torch.equal(twin[0][1].bias, model[0].bias)
    assert torch.equal(twin[6].weight, model[6].weight)
    assert (twin[4].groups, twin[4].padding_mode, twin[4].dilation) == (4, "reflect", (2, 2))
    assert [type(m) for m in twin[6:]] == [type(m) for m in model[6:]]


@pytest.mark.parametrize("side", [21, 22, 23, 24])
def test_sides_stay_at_every_layer(side):
    model, x = small()[:7], torch.randn(1, 2, side, side)
    twin, _ = convert(model, example=x)
    for depth in range(1, 8):
        assert twin[:depth](x).shape == model[:depth](x).shape


def test_gradients_reach_every_parameter():
    twin, _ = convert(small())
    twin(torch.randn(4, 2, 33, 33)).square().sum().backward()
    for name, parameter in twin.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().amax() > 0, name


def test_training_on_keeps_it_exact():
    model, x = narrow_head(), torch.randn(4, 1, 28, 28)
    twin, _ = convert(model)
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        F.cross_entropy(twin(x), torch.arange(4)).backward()
        optimizer.step()
    assert invariance_error(twin, x) < 1e-5


def test_states_can_be_saved_and_loaded():
    first, second = (convert(small())[0].eval() for _ in range(2))
    x = torch.randn(1, 2, 20, 20)
    assert not torch.equal(first(x), second(x))
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(x), second(x))
    for whole in (copy.deepcopy(first), pickle.loads(pickle.dumps(first))):
        assert torch.equal(first(x), whole(x))


def test_what_is_converted_stays_as_it_is():
    twin, _ = convert(narrow_head())
    again, report = convert(twin)
    assert report.changed == ()
    x = torch.randn(1, 1, 28, 28)
    assert torch.equal(again(x), twin(x))


def test_a_strided_radial_layer_loses_its_stride():
    twin, report = convert(SREConv2d(1, 2, 3, stride=2, padding=1))
    assert report.is_exact
    assert [type(part) for part in twin] == [SidePool, SREConv2d]


def test_a_layer_may_be_the_whole_model():
    twin, report = convert(nn.Conv2d(1, 2, 3))
    assert isinstance(twin, SREConv2d)
    assert report.changed[0].name == "the model"


def test_a_parametrised_kernel_is_converted_as_it_stands():
    model = nn.Sequential(parametrizations.weight_norm(nn.Conv2d(2, 3, 3)))
    twin, report = convert(model)
    assert report.is_exact
    mean = model[0].weight.detach().mean((2, 3))
    weight = twin[0].weight.detach()
    torch.testing.assert_close((weight * torch.tensor([1, 8.0])).sum(-1) / 9, mean)


def test_a_shared_layer_stays_shared():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = self.b = nn.Conv2d(2, 2, 3, padding=1)
            self.c = nn.Sequential(self.a)

        def forward(self, x):
            return self.c(self.b(self.a(x)))

    twin, report = convert(Twice())
    assert twin.a is twin.b is twin.c[0]
    assert isinstance(twin.a, SREConv2d)
    assert [row.name for row in report.changed] == ["a"]


# Other sides and dimensions


@pytest.mark.parametrize("kernel_size", [1, 3, 5, 9])
def test_all_kernels_may_be_given_another_side(kernel_size):
    model = nn.Sequential(
        nn.Conv2d(2, 3, 5, 2, 2), nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 2, 2),
        nn.Conv2d(3, 3, 1), nn.ConvTranspose2d(3, 2, 3, 2, 1),
    )  # fmt: skip
    twin, report = convert(model, kernel_size)
    assert report.is_exact
    kernels = [m.kernel_size for m in twin.modules() if isinstance(m, RadialConv)]
    assert kernels == [(kernel_size,) * 2] * 4
    assert twin[3].kernel_size == (1, 1)
    for side in (31, 32):
        x = torch.randn(1, 2, side, side)
        assert twin(x).shape == model(x).shape


def test_the_report_says_how_kernels_of_another_side_were_made():
    model = nn.Sequential(nn.Conv2d(2, 3, 5, padding=2))
    wide, narrow = convert(model, 7)[1].changed[0], convert(model, 3)[1].changed[0]
    assert wide.how == "averaged over bands, zero outside its 5x5 pixels"
    assert narrow.how == "averaged over bands, cut off outside its middle 3x3 pixels"
    same = convert(model)[1].changed[0]
    assert same.how == "averaged over its bands"
    assert narrow.energy_kept < same.energy_kept


def test_an_even_side_is_refused():
    with pytest.raises(ValueError, match="kernel_size must be odd and positive, got 4; try 5"):
        convert(small(), 4)


@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(
            nn.Conv1d(2, 4, 5, 2),
            nn.MaxPool1d(2),
            nn.AvgPool1d(3, 2),
            nn.ConvTranspose1d(4, 2, 4, 2),
        ),
        nn.Sequential(
            nn.Conv2d(2, 4, 4, 4), nn.AvgPool2d(5, 2, 2), nn.ConvTranspose2d(4, 2, 3, 2, 1, 1)
        ),
        nn.Sequential(
            nn.Conv3d(2, 4, (1, 3, 3), (1, 2, 2), (0, 1, 1)),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)),
            nn.ConvTranspose3d(4, 2, 2, 2),
        ),
    ],
    ids=["1d", "2d", "3d"],
)
def test_maps_of_every_dimension_turn_with_their_input(model):
    _, report = convert(model)
    assert report.is_exact, str(report)
    assert len(report.changed) == len(model)
    assert len(report.examples) == 2
    assert invariance_error(model, torch.randn(report.examples[0])) > 1e-2


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize("side", [11, 12])
@pytest.mark.parametrize(
    ("kernel_size", "stride", "padding"), [(2, 2, 0), (3, 2, 1), (5, 2, 1), (2, 3, 0), (7, 3, 3)]
)
def test_strided_pools_keep_their_side(dims, ceil_mode, side, kernel_size, stride, padding):
    conv = {1: SREConv1d, 2: SREConv2d, 3: SREConv3d}[dims](1, 1, 1)
    x = torch.randn(1, 1, *(side if dims < 3 else side - 4,) * dims)
    for kind in ("Max", "Avg"):
        pool = getattr(nn, f"{kind}Pool{dims}d")(kernel_size, stride, padding, ceil_mode=ceil_mode)
        twin, report = convert(nn.Sequential(conv, pool), example=x)
        assert twin(x).shape == pool(x).shape
        assert report.is_exact, str(report)


@pytest.mark.parametrize("kernel_size", [2, 3])
def test_pools_that_were_exact_stay_the_same_function(kernel_size):
    x = torch.randn(1, 1, 12, 12)
    conv = nn.Conv2d(1, 1, 1)
    for pool in (nn.MaxPool2d(kernel_size), nn.AvgPool2d(kernel_size)):
        twin, _ = convert(nn.Sequential(conv, pool), example=x)
        torch.testing.assert_close(twin[1](x), pool(x))
    still = nn.MaxPool2d(3, stride=1, padding=1)
    assert convert(nn.Sequential(conv, still), example=x)[1].changed == ()


# What cannot be replaced


def narrow_head() -> nn.Module:
    """LeNet's way: functions in the forward, and a linear layer over the flattened map."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.fc = nn.Conv2d(1, 4, 5), nn.Linear(4 * 12 * 12, 10)

        def forward(self, x):
            return self.fc(F.max_pool2d(F.relu(self.conv(x)), 2).flatten(1))

    return Net()


def test_a_linear_layer_behind_functions_is_found():
    _, report = convert(narrow_head())
    assert report.examples == ((1, 1, 28, 28),)
    assert report.changed[-1].name == "fc"
    assert report.is_exact


class Fault(nn.Module):
    """A network with something of its own in the middle."""

    def __init__(self, middle: nn.Module):
        super().__init__()
        self.stem, self.middle = nn.Conv2d(3, 4, 3, padding=1), middle
        self.head = nn.Conv2d(4, 2, 3, padding=1)

    def forward(self, x):
        return self.head(self.middle(self.stem(x))).mean((2, 3))


class Pooled(nn.Module):
    def forward(self, x):
        return F.max_pool2d(x, 3, 2)


class Placed(nn.Module):
    def __init__(self):
        super().__init__()
        self.place = nn.Parameter(torch.randn(1, 4, 32, 32))

    def forward(self, x):
        return x + self.place


class SameConv(nn.Conv2d):
    def forward(self, x):
        return super().forward(F.pad(x, (0, 1, 0, 1)))


@pytest.mark.parametrize(
    ("middle", "breaks_at", "why"),
    [
        (Pooled(), "middle (Pooled)", None),
        (Placed(), "middle (Placed)", "its parameter place, 1x4x32x32, may differ"),
        (SameConv(4, 4, 2), "middle (SameConv)", "a convolution of an unknown kind"),
        (
            nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(16, 4, 1)),
            "middle.0",
            "channels of places",
        ),
        (nn.Conv2d(4, 4, 3, (1, 2), 1), "middle (Conv2d)", "its stride and margin differ"),
        (nn.MaxPool2d((1, 2)), "middle (MaxPool2d)", "windows and strides differ"),
        (nn.AvgPool2d(2, divisor_override=3), "middle (AvgPool2d)", "a divisor of its own"),
        (nn.MaxPool2d((3, 1), 1), "middle (MaxPool2d)", "windows and strides differ"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_the_layer_that_breaks_is_named(middle, breaks_at, why):
    _, report = convert(Fault(middle))
    if breaks_at is not None:
        assert breaks_at in report.breaks_at
        assert not report.is_exact
        assert f"Maps cease to turn at {report.breaks_at}." in str(report)
    if why is not None:
        (kept,) = [row for row in report.kept if row.name.startswith("middle")]
        assert why in kept.why
        assert kept.why in str(report)


def test_a_pool_that_is_asked_for_indices_stays():
    class Indexed(nn.MaxPool2d):
        def __init__(self):
            super().__init__(2, return_indices=True)

    _, report = convert(nn.Sequential(nn.Conv2d(1, 1, 3), Indexed()))
    assert report.kept[0].why.startswith("its indices are asked for")


@pytest.mark.slow
def test_a_pool_in_the_forward_of_inception_is_found():
    _, report = convert(get_model("inception_v3", weights=None, init_weights=False).eval())
    assert report.breaks_at == "Mixed_6a (InceptionB)"
    assert report.kept == ()


@pytest.mark.slow
def test_what_a_transformer_adds_to_places_is_named():
    _, report = convert(timm.create_model("vit_tiny_patch16_224"))
    assert not report.is_exact
    assert "its parameter pos_embed" in report.kept[0].why
    assert report.breaks_at.startswith("pos_drop")


def test_a_model_that_no_example_fits_is_not_measured():
    model = nn.Sequential(nn.Conv2d(1, 1, 3), nn.Flatten(), nn.Linear(7, 2))
    twin, report = convert(model)
    assert isinstance(twin[0], SREConv2d)
    assert (report.error, report.breaks_at, report.examples) == (None, None, ())
    assert not report.is_exact
    assert "Not measured: no input could be guessed; give an example." in str(report)


def test_an_example_that_does_not_fit_is_the_callers():
    with pytest.raises(RuntimeError):
        convert(small(), example=torch.randn(1, 7, 32, 32))


def test_a_model_without_a_convolution_is_refused():
    with pytest.raises(ValueError, match="Linear has no convolution; give a model with layers"):
        convert(nn.Linear(2, 3))


# The report


def test_the_report_is_a_table():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 1, 3, 2, 1), nn.ReLU(), nn.MaxPool2d(2))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[[[0.0, 1, 0], [1, 2, 1], [0, 1, 0]]]]))
    _, report = convert(model, example=torch.randn(1, 1, 12, 12))
    lines = str(report).splitlines()
    assert lines[:3] == [
        "layer  was                      is                       energy kept  how",
        "0      Conv2d 3x3, stride 2     SidePool, SREConv2d 3x3  75.0%        "
        "averaged over its bands; stride 2 became a mean",
        "2      MaxPool2d 2x2, stride 2  SidePool                              "
        "stride 2 became an adaptive maximum",
    ]
    assert lines[4].startswith("Over the quarter turns of 1x1x12x12 inputs the answers change by ")
    with pytest.raises(FrozenInstanceError):
        report.error = 0.0


def test_mirrors_and_oblong_images_are_no_exception():
    x = torch.randn(1, 2, 30, 31)
    twin, _ = convert(small())
    turn = grid_action(quarter_turns=1, mirror=True)
    torch.testing.assert_close(twin.eval()(turn(x)), twin(x), rtol=1e-4, atol=1e-5)


def test_its_example_runs():
    assert doctest.testmod(conversion).failed == 0
