import copy

import pytest
import torch
import torch.nn.functional as F

from sre.errors import SettingError, UnknownNameError
from sre.layers import SREConv2d
from sre.models import (
    MODELS,
    build_model,
    count_multiply_adds,
    count_parameters,
    find_model,
)
from sre.resnet import HalvingPool
from sre.spectra import prefers_spectra


@pytest.mark.parametrize("name", MODELS)
def test_every_model_builds_runs_trains_and_is_restored(name):
    settings = {"in_channels": 3, "num_classes": 4, "width": 4}
    model = build_model(name, **settings)
    entry = find_model(name)
    images = torch.randn(8, 3, *(24,) * entry.dims)
    shape = (8,) if entry.labels == "image" else (8, *images.shape[2:])
    labels = torch.randint(4, shape)
    losses = []
    for _ in range(4):
        loss = F.cross_entropy(model(images), labels)
        grads = torch.autograd.grad(loss, list(model.parameters()))  # each is reached, or it raises
        scale = 3e-3 / torch.stack([grad.norm() for grad in grads]).norm()  # whatever the depth
        with torch.no_grad():
            for parameter, grad in zip(model.parameters(), grads, strict=True):
                parameter -= scale * grad
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    twin = build_model(name, **settings)
    twin.load_state_dict(copy.deepcopy(model.state_dict()))
    with torch.no_grad():
        assert torch.equal(twin.eval()(images), model.eval()(images))


@pytest.mark.parametrize("name", MODELS)
def test_entries_stand_under_their_names_and_describe_themselves(name):
    entry = find_model(name)
    assert entry.name == name
    assert entry.title
    assert entry.family in ("sre", "gmr", "plain")
    assert entry.summary.endswith(".")


@pytest.mark.parametrize("name", MODELS)
def test_models_take_the_sides_that_they_name(name):
    entry = find_model(name)
    model = build_model(name, in_channels=1, num_classes=2, width=2).eval()
    for side in entry.sides_px:
        space = (side,) * entry.dims
        with torch.no_grad():
            logits = model(torch.zeros(1, 1, *space))
        assert logits.shape == (1, 2, *(space if entry.labels == "pixels" else ()))


# Every side that a model of 2 or 3 dimensions takes may come; these are odd, even, prime, and last.
SIDES = {2: (24, 29, 45, 64, 97, 127, 160, 223, 224), 3: (24, 25, 33, 47, 64)}
EXACT = [
    pytest.param(name, side, marks=[] if side < 30 else pytest.mark.slow, id=f"{name}-{side}")
    for name, entry in MODELS.items()
    if entry.equivariant
    for side in SIDES[entry.dims]
]


@pytest.mark.parametrize(("name", "side"), EXACT)
def test_every_entry_is_exact_at_every_side(name, side):
    entry = find_model(name)
    plain = name.partition("_")[2]
    # Quarter turns in each plane and a mirror make up every symmetry of the grid.
    planes = [(-2, -1), (-3, -2)][: entry.dims - 1]
    moves = [lambda x, plane=plane: x.rot90(1, plane) for plane in planes]
    moves.append(lambda x: x.flip(-1))
    x = torch.randn(1, 2, *(side,) * entry.dims)
    errors = {}
    for kind in (name, plain):
        model = build_model(kind, in_channels=2, num_classes=3, width=4).eval()
        with torch.no_grad():
            before = model(x)
            turn = (lambda y, _: y) if entry.labels == "image" else (lambda y, move: move(y))
            errors[kind] = max(
                float((model(move(x)) - turn(before, move)).abs().amax() / before.abs().amax())
                for move in moves
            )
    assert errors[name] < 1e-4
    assert errors[plain] > 10 * errors[name]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("sre_resnet1", r"^unknown model 'sre_resnet1'; did you mean 'sre_resnet18'\?$"),
        ("vgg", r"^unknown model 'vgg'; choose from sre_resnet18, resnet18"),
    ],
)
def test_unknown_models_are_named(given, message):
    with pytest.raises(UnknownNameError, match=message):
        build_model(given, in_channels=1, num_classes=2)


@pytest.mark.parametrize(
    "settings", [{"in_channels": 0}, {"num_classes": 1}, {"width": 0}, {"width": 513}], ids=str
)
def test_sizes_out_of_range_are_refused(settings):
    settings = {"in_channels": 3, "num_classes": 2, "width": 4, **settings}
    message = (
        f"cannot build resnet18 with {settings['in_channels']} channels, "
        f"{settings['num_classes']} classes and width {settings['width']}; give at least 1 channel"
    )
    with pytest.raises(SettingError, match=message):
        build_model("resnet18", **settings)


@pytest.mark.parametrize("kernel_sizes", [(9, 9, 5), (9, 8, 5, 5), (17, 9, 5, 5), (-1, 3, 3, 3)])
def test_wrong_kernel_sizes_are_refused(kernel_sizes):
    given = ",".join(map(str, kernel_sizes))
    message = f"kernel sizes must be four odd numbers from 1 to 15, got {given}; try 9,9,5,5$"
    with pytest.raises(SettingError, match=message):
        build_model("sre_resnet18", in_channels=1, num_classes=2, kernel_sizes=kernel_sizes)


def test_pools_that_blur_are_for_classifiers():
    settings = {"in_channels": 1, "num_classes": 2, "width": 2, "blur_pools": True}
    for name in ("resnet18", "sre_resnet50", "gmr_r3d_18"):
        pools = [m for m in build_model(name, **settings).modules() if isinstance(m, HalvingPool)]
        assert pools
        assert all(pool.blurs for pool in pools)
    with pytest.raises(SettingError, match="unet labels pixels, for which blurred pools are not"):
        build_model("unet", **settings)


# Costs


@pytest.mark.parametrize(
    ("name", "in_channels", "num_classes", "width", "parameters"),
    [
        ("sre_resnet18", 3, 9, 64, 3_996_105),
        ("sre_resnet18", 3, 2, 16, 251_634),
        ("resnet18", 3, 2, 16, 701_202),
        ("sre_resnet18", 3, 8, 16, 252_408),
        ("resnet18", 3, 8, 16, 701_976),
    ],
)
def test_parameters(name, in_channels, num_classes, width, parameters):
    model = build_model(name, in_channels=in_channels, num_classes=num_classes, width=width)
    assert count_parameters(model) == parameters


def plain_multiply_adds(*, in_channels: int, num_classes: int, width: int, side: int) -> int:
    """What ResNet-18 takes, by hand: k * k * in * out * pixels a convolution."""
    total = 25 * in_channels * width * side**2
    channels = width
    for stage in range(4):
        out = width * 2**stage
        side = -(-side // 2) if stage else side
        weights = 9 * (channels * out + 3 * out * out) + (channels * out if stage else 0)
        total += weights * side**2
        channels = out
    return total + channels * num_classes


@pytest.mark.parametrize("side", [28, 32])
def test_multiply_adds_of_the_plain_network(side):
    settings = {"in_channels": 3, "num_classes": 9, "width": 8}
    model = build_model("resnet18", **settings)
    counted = count_multiply_adds(model, in_channels=3, side=side)
    assert counted == plain_multiply_adds(**settings, side=side)


def test_multiply_adds_of_the_band_sums_are_a_twelfth_of_the_dense_kernels():
    model = build_model("sre_resnet18", in_channels=3, num_classes=9).eval()
    fast = count_multiply_adds(model, in_channels=3, side=32)
    # Where there is no CPU, the dense kernels are used; the meta device has nothing at all.
    dense = count_multiply_adds(model.to("meta"), in_channels=3, side=32)
    assert round(dense / 1e9, 3) == 3.293  # as for the authors' package
    assert 11 < dense / fast < 13


@pytest.mark.parametrize("out_channels", [3, 16])
def test_the_band_sums_take_one_product_a_band(out_channels):
    layer = SREConv2d(8, out_channels, 9, padding=4)
    assert prefers_spectra((1, 20, 20, 8), out_channels, 9)  # which do not count
    counted = count_multiply_adds(layer, in_channels=8, side=20)
    assert counted == 5 * 8 * out_channels * 20**2
    assert layer.allows_spectra
    layer.dense = True
    assert count_multiply_adds(layer, in_channels=8, side=20) == 81 * 8 * out_channels * 20**2


@pytest.mark.parametrize("training", [True, False])
def test_counting_leaves_the_model_as_it_was(training):
    model = build_model("sre_resnet18", in_channels=1, num_classes=2, width=4).train(training)
    before = copy.deepcopy(model.state_dict())
    count_multiply_adds(model, in_channels=1, side=24)
    assert model.training == training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
