import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sre.inspection import check_equivariance, example_input
from sre.layers import SREConv2d, SREConv3d
from sre.models import build_model
from sre.report import EquivarianceReport
from sre.symmetry import disc_mask, rotate
from tests.test_listening import Raising, hooks_of

PLAIN = "its ordinary {} kernels are not radially symmetric"


def network(name: str) -> nn.Module:
    """A small untrained network of the library, whose batch-norms do something."""
    model = build_model(name, in_channels=2, num_classes=3, width=2)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.constant_(module.bias, 0.5)  # so that not all of two channels fall silent
    return model


def radial(channels: int = 2) -> SREConv2d:
    return SREConv2d(channels, 2, 5, padding=2)


class Apply(nn.Module):
    """Makes a layer of a function."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class Chain(nn.Module):
    """Runs its layers one after the other, with a function, which is no layer, after the first."""

    def __init__(self, *layers: nn.Module, between):
        super().__init__()
        self.layers, self.between = nn.ModuleList(layers), between
        self.place = nn.Parameter(torch.randn(1, 2, 12, 12))

    def forward(self, x):
        x = self.between(self, self.layers[0](x))
        for layer in self.layers[1:]:
            x = layer(x)
        return x


def first_broken(model: nn.Module, x: Tensor | None = None, side: int = 12) -> tuple[str, str]:
    found = check_equivariance(model, x, side=side, angles_deg=()).first_broken
    assert found is not None
    return found.name, found.reason


# Exact networks, and their ordinary twins


@pytest.mark.parametrize(
    ("name", "sides"),
    [
        ("sre_resnet18", (15, 15)), ("sre_resnet18", (12, 12)), ("sre_resnet18", (12, 9)),
        ("gmr_resnet18", (13, 13)), ("sre_unet", (9, 9)), ("sre_unet", (12, 12)),
        ("sre_r3d_18", (7, 7, 7)), ("sre_r3d_18", (6, 8, 6)),
    ],
)  # fmt: skip
def test_radial_networks_are_exact_in_every_layer(name, sides):
    report = check_equivariance(network(name), torch.randn(1, 2, *sides), angles_deg=())
    assert report.is_exact
    assert max(row.exact_error for row in report.rows) < 1e-5  # measured: 4e-7
    assert not any(math.isnan(row.exact_error) or row.reason for row in report.rows)
    grid = "x".join(map(str, sides))
    assert report.headline.startswith(f"Exact: at {grid} every output turns and mirrors with the")
    assert report.headline.endswith(f" (outputs: {len(report.rows)}).")


@pytest.mark.parametrize(
    ("name", "side", "layer", "kernel"),
    [
        ("resnet18", 12, "stem.0", "5x5"),
        ("unet", 12, "down1.conv1", "3x3"),
        ("r3d_18", 8, "stem.0", "3x3x3"),
    ],
)
def test_ordinary_networks_break_at_their_first_convolution(name, side, layer, kernel):
    report = check_equivariance(network(name), side=side, angles_deg=())
    assert (report.first_broken.name, report.first_broken.reason) == (layer, PLAIN.format(kernel))
    assert report.first_broken.exact_error > 0.1
    assert report.broken == report.rows
    heirs = len(report.rows) - 1
    assert f"(outputs after it that inherit the error: {heirs} of {heirs})" in report.headline


def test_rows_stand_in_the_order_of_execution():
    rows = check_equivariance(network("sre_resnet18"), side=9, angles_deg=()).rows
    names = [row.name for row in rows]
    block = ["conv1", "norm1", "conv2", "norm2"]
    assert names[:3] == ["stem.0", "stem.1", "stem.2"]
    assert names[3:8] == [*(f"stage1.0.{layer}" for layer in block), "stage1.0"]
    assert names[-2:] == ["head", "(output)"]
    assert (rows[0].kind, rows[0].shape) == ("SREConv2d", (1, 2, 9, 9))
    assert (rows[-1].kind, rows[-1].shape) == ("ResNet", (1, 3))


def test_a_network_of_torchvision_breaks_at_its_stem():
    models = pytest.importorskip("torchvision.models")
    name, reason = first_broken(models.resnet18(num_classes=3), side=32)
    assert name == "conv1"
    assert reason == (
        f"{PLAIN.format('7x7')}; stride 2 samples side 32 off centre (sides 31 and 33 fit)"
    )


# Nets made by hand, each with one fault


@pytest.mark.parametrize(
    ("layers", "side", "name", "reason"),
    [
        ([radial(), nn.MaxPool2d(3, 2, 1)], 12, "1",
         "windows of 3 with stride 2 do not divide side 12 evenly (sides 11 and 13 fit)"),
        ([radial(), nn.MaxPool2d(2), nn.AvgPool2d(2)], 14, "2",
         "windows of 2 with stride 2 do not divide side 7 evenly (sides 6 and 8 fit)"),
        ([radial(), nn.ReLU(), nn.Conv2d(2, 2, 1, stride=2)], 12, "2",
         "stride 2 samples side 12 off centre (sides 11 and 13 fit)"),
        ([radial(), nn.Flatten(), nn.Linear(288, 3)], 12, "1",
         "flattened position: each pixel becomes a feature of its own"),
        ([radial(), nn.Conv2d(2, 2, 3), nn.AvgPool2d(2)], 11, "1", PLAIN.format("3x3")),
        ([radial(), nn.BatchNorm2d(2), nn.Dropout(), nn.ZeroPad2d((1, 0, 1, 0))], 12, "3",
         "padding (1, 0, 1, 0) is not the same on all sides"),
        ([radial(), Apply(lambda x: F.dropout(x))], 12, "1",
         "its output changes from one run to the next, even in eval mode"),
        ([radial(), Apply(torch.log)], 12, "1", "its output holds numbers that are not finite"),
        ([radial(), Apply(lambda x: x.cumsum(-1))], 12, "1", "reason unknown"),
        ([radial(), Apply(lambda x: x[..., 1:])], 12, "1", "it makes maps of 12x11 out of maps of "
         "12x12"),
    ],
    ids=lambda value: str(value[-1])[:20] if isinstance(value, list) else "",
)  # fmt: skip
def test_the_layer_with_the_fault_is_marked(layers, side, name, reason):
    assert first_broken(nn.Sequential(*layers), side=side) == (name, reason)


@pytest.mark.parametrize(
    ("between", "last", "reason"),
    [
        (lambda net, x: x + net.place, radial(),
         "absolute position: 'place' of the network has the map's sides 12x12"),
        (lambda net, x: x.flatten(1), nn.Linear(288, 3),
         "flattened position: each pixel has become a feature of its own"),
        (lambda net, x: F.max_pool2d(x, 3, 2), radial(),
         "its input is broken already, by an operation before it that is no layer"),
    ],
)  # fmt: skip
def test_what_is_no_layer_is_found_by_the_layer_after_it(between, last, reason):
    assert first_broken(Chain(radial(), last, between=between)) == ("layers.1", reason)


def test_what_nothing_comes_after_is_found_by_the_network():
    name, reason = first_broken(Chain(radial(), between=lambda net, x: F.max_pool2d(x, 3, 2)))
    assert (name, reason) == (
        "(output)",
        "an operation in its own forward, outside the layers in it",
    )
    name, reason = first_broken(Chain(radial(), between=lambda net, x: x * net.place))
    assert (name, reason) == ("(output)", "absolute position: 'place' has the map's sides 12x12")


def test_an_output_may_be_exact_again():
    layers = [radial(), nn.PixelUnshuffle(2), Apply(lambda x: x.mean((1, 2, 3)))]
    report = check_equivariance(nn.Sequential(*layers), side=12, angles_deg=())
    assert report.first_broken.name == "1"
    assert report.first_broken.reason == "it trades positions for channels"
    assert report.rows[-1].exact_error < 1e-5
    assert "(outputs after it that inherit the error: 0 of 2)" in report.headline


# What is compared with what


def test_errors_on_paper():
    # One pixel kept of four equal ones: turned, the kept one is another, so that |f(gx) - g f(x)|
    # is sqrt(2) times |f(x)|. Of the mirrors, the one along a diagonal leaves it where it is.
    keep = torch.tensor([[0.0, 0.0], [0.0, 1.0]])
    (row,) = check_equivariance(Apply(lambda x: x * keep), torch.ones(1, 1, 2, 2)).rows
    assert row.name == "(output)"
    assert (row.quarter_turns, row.mirrors) == pytest.approx((2**0.5, 2**0.5))
    # A scalar that doubles as the image turns.
    double = Apply(lambda x: x[:, 0, 0, :1] + 1)
    x = torch.tensor([[[[0.0, 1.0], [0.0, 0.0]]]])
    (row,) = check_equivariance(double, x).rows
    assert row.shape == (1, 1)
    assert row.quarter_turns == pytest.approx(1.0)


@pytest.mark.parametrize("angle", [30.0, 45.0, -110.0])
def test_errors_at_other_angles(angle):
    layer, x = radial(), example_input(in_channels=2, side=15)
    (row,) = check_equivariance(layer, x, angles_deg=(angle,)).rows
    disc = disc_mask(15, 15)
    with torch.no_grad():
        before, after = layer(x * disc), layer(rotate(x * disc, angle_deg=angle))
        wanted = rotate(before, angle_deg=angle)
        back = rotate(wanted, angle_deg=-angle)
    norm = (before * disc).norm()
    assert row.angles == pytest.approx([float(((after - wanted) * disc).norm() / norm)], rel=1e-4)
    assert row.floors == pytest.approx([float(((back - before) * disc).norm() / norm)], rel=1e-4)


def test_layers_without_extent_commute_with_every_angle():
    x = torch.randn(1, 2, 9, 9)  # whose interpolation is as bad as can be
    rows = check_equivariance(nn.Sequential(nn.Conv2d(2, 2, 1, bias=False)), x).rows
    assert max(rows[0].angles) < 1e-6
    assert min(rows[0].floors) > 0.3
    volume = torch.randn(1, 2, 7, 7, 7)
    rows = check_equivariance(nn.Sequential(nn.Conv3d(2, 2, 1, bias=False)), volume).rows
    assert max(rows[0].angles) < 1e-6
    assert min(rows[0].floors) > 0.3


def test_features_and_logits_are_to_stay():
    model = nn.Sequential(radial(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 3))
    report = check_equivariance(model, side=12)
    assert report.is_exact
    assert [row.shape[1:] for row in report.rows] == [(2, 12, 12), (2, 1, 1), (2,), (3,), (3,)]
    assert all(math.isnan(floor) for floor in report.rows[-1].floors)
    assert report.rows[1].floors == (0.0, 0.0)  # one pixel


def test_the_largest_error_of_the_batch_counts():
    layer, x = nn.Conv2d(1, 2, 3), torch.randn(3, 1, 9, 9)
    (whole,) = check_equivariance(layer, x).rows
    each = [check_equivariance(layer, image[None]).rows[0] for image in x]
    assert whole.quarter_turns == pytest.approx(max(row.quarter_turns for row in each))
    assert whole.mirrors == pytest.approx(max(row.mirrors for row in each))
    assert whole.angles[1] == pytest.approx(max(row.angles[1] for row in each))


def test_maps_may_have_their_channels_last():
    last = Apply(lambda x: x.permute(0, 2, 3, 1))
    layers = [radial(), last, nn.LayerNorm(2), nn.Linear(2, 6), nn.GELU()]
    report = check_equivariance(nn.Sequential(*layers), side=12)
    assert report.is_exact
    assert report.rows[3].shape == (1, 12, 12, 6)
    assert max(report.rows[1].angles) == pytest.approx(max(report.rows[0].angles))
    layers.insert(1, nn.ZeroPad2d((1, 0, 1, 0)))
    assert first_broken(nn.Sequential(*layers))[0] == "1"


class Attending(nn.Module):
    """Attends over pixels without knowing where they are, then averages."""

    def __init__(self):
        super().__init__()
        self.first, self.attention = radial(), nn.MultiheadAttention(2, 1, batch_first=True)

    def forward(self, x):
        pixels = self.first(x).flatten(2).transpose(1, 2)
        return self.attention(pixels, pixels, value=pixels)[0].mean(1)


def test_outputs_of_other_axes_are_not_judged():
    report = check_equivariance(Attending(), side=8, angles_deg=())
    assert [row.name for row in report.rows] == [
        "first", "attention[0]", "attention[1]", "(output)",
    ]  # fmt: skip
    assert [math.isnan(row.exact_error) for row in report.rows] == [False, True, True, False]
    assert report.is_exact
    assert report.headline.endswith(" (outputs: 2, 2 of other shapes not compared).")


def test_every_call_and_every_tensor_has_a_row():
    layer = radial()
    both = Apply(lambda x: (layer(x), {"twice": [layer(layer(x)), None], "sizes": x.argmax(1)}))
    both.layer = layer
    report = check_equivariance(both, side=12, angles_deg=())
    assert [row.name for row in report.rows] == [
        "layer", "layer#2", "layer#3", "(output)[0]", "(output)[1]",
    ]  # fmt: skip
    assert report.is_exact


def test_networks_whose_calls_depend_on_the_image():
    def choose(x: Tensor) -> Tensor:
        return layer(x) if x[0, 0, 0, 0] > 0 else x

    layer = radial()
    model = Apply(choose)
    model.layer = layer
    x = torch.randn(1, 2, 9, 9)
    x[0, 0, 0, 0], x[0, 0, -1, 0], x[0, 0, 0, -1] = 1, -1, -1
    first = check_equivariance(model, x).first_broken
    assert first.name == "layer"
    assert first.quarter_turns == math.inf


def test_layers_that_overwrite_their_input():
    model = nn.Sequential(radial(), nn.ReLU(inplace=True), Apply(lambda x: x.add_(1)), radial())
    report = check_equivariance(model, side=9)
    assert report.is_exact
    assert report.rows[0].quarter_turns > 0


def test_sides_that_differ():
    model = nn.Sequential(radial(), nn.MaxPool2d(3, 2))
    report = check_equivariance(model, torch.randn(1, 2, 9, 12), angles_deg=(30.0, 90.0))
    assert report.input_shape == (1, 2, 9, 12)
    assert report.first_broken.name == "1"
    assert "do not divide side 12 evenly (sides 11 and 13 fit)" in report.first_broken.reason
    assert report.rows[0].angles[1] < 1e-5
    assert check_equivariance(model, torch.randn(1, 2, 9, 13), angles_deg=()).is_exact
    upright = nn.Sequential(radial(), nn.AdaptiveAvgPool2d((4, 5)))
    assert check_equivariance(upright, torch.randn(1, 2, 9, 12)).first_broken.mirrors == math.inf


def test_volumes():
    x = torch.randn(1, 2, 5, 6, 7)
    model = nn.Sequential(SREConv3d(2, 2, 3), nn.ReLU(), nn.MaxPool3d(2))
    name, reason = first_broken(model, x)
    assert name == "2"
    assert reason.startswith("windows of 2 with stride 2 do not divide side 3 evenly")
    # A kernel that knows up from down alone breaks turns about the two other axes only.
    layer = nn.Conv3d(2, 2, (3, 1, 1))
    assert first_broken(layer, x) == (
        "(output)",
        "its 3x1x1 kernels are not the same along all axes",
    )


# What the model and the caller keep


def test_the_model_and_the_random_numbers_are_left_alone():
    model = network("sre_resnet18").train()
    model.stem.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    numbers = torch.get_rng_state()
    check_equivariance(model, side=9, angles_deg=(30.0,))
    assert torch.equal(torch.get_rng_state(), numbers)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert hooks_of(model) == 0


def test_nothing_is_left_behind_where_the_model_raises():
    model = Raising().train()
    with pytest.raises(ValueError, match="expected 2D or 3D input"):
        check_equivariance(model, torch.zeros(1, 2, 4, 4))
    assert hooks_of(model) == 0
    assert model.training
    assert model.layer.training


def test_models_in_double_precision():
    report = check_equivariance(radial().double(), side=9, tolerance=1e-12)
    assert report.is_exact
    assert report.tolerance == 1e-12


def test_models_in_half_precision():
    report = check_equivariance(radial().bfloat16(), side=9, angles_deg=(), tolerance=0.02)
    assert report.is_exact


def test_the_tolerance_decides():
    layer = nn.Conv2d(1, 1, 3, bias=False)
    with torch.no_grad():
        layer.weight.fill_(1)
        layer.weight[..., 0, 0] += 1e-3
    assert not check_equivariance(layer, side=9).is_exact
    assert check_equivariance(layer, side=9, tolerance=0.01).is_exact


def test_many_images_pass_in_parts():
    report = check_equivariance(network("sre_resnet18"), torch.randn(65, 2, 8, 8), angles_deg=())
    assert report.is_exact
    assert not any(math.isnan(row.exact_error) for row in report.rows)


# What it is given


@pytest.mark.parametrize("shape", [(2, 9), (1, 2, 9), (1, 1, 2, 3, 4, 5), (0, 2, 9, 9)])
def test_other_inputs_are_refused(shape):
    message = (
        r"^x must be images \(B, C, H, W\) or volumes \(B, C, D, H, W\), got \(.*; add or drop"
    )
    with pytest.raises(ValueError, match=message):
        check_equivariance(radial(), torch.zeros(shape))


@pytest.mark.parametrize("angle", [math.nan, math.inf])
def test_angles_are_finite(angle):
    message = f"^angles must be finite numbers of degrees, got .*{angle}.*; try 30 and 45$"
    with pytest.raises(ValueError, match=message):
        check_equivariance(radial(), side=9, angles_deg=(30, angle))


def test_without_a_convolution_the_input_must_be_given():
    message = "^the model has no convolution that tells its channels; give x$"
    with pytest.raises(ValueError, match=message):
        check_equivariance(nn.Sequential(nn.Flatten(), nn.Linear(4, 4)))


@pytest.mark.parametrize(("dims", "side"), [(2, 28), (2, 6), (3, 16), (2, 1)])
def test_the_example_is_smooth_and_always_the_same(dims, side):
    x = example_input(in_channels=3, side=side, dims=dims, batch=2)
    assert x.shape == (2, 3, *(side,) * dims)
    assert torch.equal(x, example_input(in_channels=3, side=side, dims=dims, batch=2))
    assert not torch.equal(x, example_input(in_channels=3, side=side, dims=dims, batch=2, seed=1))
    assert torch.allclose(x.flatten(2).square().mean(2), torch.ones(2, 3), atol=1e-5)
    spectrum = torch.fft.fft(x.double()).abs().sum(tuple(range(x.dim() - 1)))
    periods = torch.fft.fftfreq(side, 1 / side).abs()
    assert spectrum[periods > 3].sum() < 1e-4 * spectrum.sum()
    assert side == 1 or spectrum[periods == 1].sum() > 0.1 * spectrum.sum()


def test_the_answer_is_a_report():
    report = check_equivariance(radial(), side=9)
    assert isinstance(report, EquivarianceReport)
    assert report.angles_deg == (30.0, 45.0)
    assert report.input_shape == (1, 2, 9, 9)
