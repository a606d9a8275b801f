from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from sre.models import CLASSIFIERS, build_model
from sre.resnet import PASS_IMAGES, PASS_VALUES, STAGES, HalvingPool, ResNet
from sre.symmetry import GRID_ACTIONS, GridAction, equivariance_error

QUICK_SIDES = (*range(24, 65), *range(73, 225, 18), 223, 224)
SIDES = [
    pytest.param(side, marks=[] if side in QUICK_SIDES else pytest.mark.slow)
    for side in range(24, 225)
]
GRID_SYMMETRIES = GRID_ACTIONS[1:]


def network(name: str, **settings) -> ResNet:
    """A narrow one, with statistics in its batch-norms as if it had been trained."""
    settings = {"in_channels": 2, "num_classes": 5, "width": 4, **settings}
    model = build_model(name, **settings).eval().requires_grad_(False)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
    return model


# Exactness


@pytest.mark.parametrize("side", SIDES)
def test_logits_are_invariant_to_the_grid_symmetries_at_every_side(side):
    # Double precision is slow at large sides, and rounding in single precision smaller there.
    dtype, tolerance = (torch.float64, 1e-12) if side <= 64 else (torch.float32, 1e-5)
    image = torch.randn(1, 2, side, side, dtype=dtype)
    seen = torch.cat([action(image) for action in GRID_ACTIONS])
    assert invariance_error(network("sre_resnet18").to(dtype), seen) < tolerance
    # Measured: 0.005 at 224 px, where noise averages out in any network, to 0.03 at 28 px.
    assert invariance_error(network("resnet18").to(dtype), seen) > 1e-3


def test_logits_are_invariant_in_single_precision():
    image = torch.randn(1, 2, 28, 28)
    seen = torch.cat([action(image) for action in GRID_ACTIONS])
    # Measured over 100 seeds: up to 2e-5, as features are larger than the logits they make.
    assert invariance_error(network("sre_resnet18"), seen) < 1e-4


def invariance_error(model: nn.Module, seen: Tensor) -> float:
    logits = model(seen)
    return float((logits - logits[:1]).abs().amax() / logits.abs().amax())


@pytest.mark.parametrize("size", [(24, 31), (28, 45), (64, 33)], ids=str)
@pytest.mark.parametrize("action", GRID_SYMMETRIES, ids=str)
def test_logits_are_invariant_for_images_that_are_not_square(size, action):
    image = torch.randn(1, 2, *size, dtype=torch.float64)
    model = network("sre_resnet18").double()
    torch.testing.assert_close(model(action(image)), model(image), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("side", [24, 25, 26, 27, 28, 29, 31, 32])
def test_features_are_equivariant_at_every_stage(side):
    image = torch.randn(1, 2, side, side, dtype=torch.float64)
    sre, plain = network("sre_resnet18").double(), network("resnet18").double()
    for action in GRID_SYMMETRIES:
        assert max(equivariance_errors(sre, action, image).values()) < 1e-12
        assert min(equivariance_errors(plain, action, image).values()) > 0.05


def equivariance_errors(model: ResNet, action: GridAction, image: Tensor) -> dict[str, float]:
    before, after = model.forward_features(image), model.forward_features(action(image))
    errors = {}
    for stage in STAGES:
        difference = (after[stage] - action(before[stage])).abs().amax()
        errors[stage] = float(difference / before[stage].abs().amax())
    return errors


@pytest.mark.parametrize("kernel_sizes", [(3, 3, 3, 3), (5, 7, 9, 11), (1, 3, 15, 1)], ids=str)
def test_other_kernels_are_exact_too(kernel_sizes):
    model = network("sre_resnet18", kernel_sizes=kernel_sizes).double()
    image = torch.randn(1, 2, 27, 27, dtype=torch.float64)
    logits = torch.cat([model(action(image)) for action in GRID_ACTIONS])
    torch.testing.assert_close(logits, logits[:1].expand_as(logits), rtol=1e-11, atol=1e-11)


# The pool


@pytest.mark.parametrize("side", [24, 27, 33, 45])
def test_blurred_pools_leave_the_invariance_exact(side):
    image = torch.randn(1, 2, side, side, dtype=torch.float64)
    seen = torch.cat([action(image) for action in GRID_ACTIONS])
    assert invariance_error(network("sre_resnet18", blur_pools=True).double(), seen) < 1e-12


@pytest.mark.parametrize("blurs", [False, True])
@pytest.mark.parametrize("action", GRID_SYMMETRIES, ids=str)
@given(height=st.integers(1, 33), width=st.integers(1, 33), seed=st.integers(0, 2**16))
def test_the_pool_commutes_with_grid_symmetries(action, blurs, height, width, seed):
    torch.manual_seed(seed)
    image = torch.randn(1, 2, height, width, dtype=torch.float64)
    assert equivariance_error(HalvingPool(blurs=blurs), action, image) < 1e-12


def test_ordinary_pools_do_not_at_every_side():
    turn, image = GRID_SYMMETRIES[0], torch.randn(1, 2, 7, 7)
    assert equivariance_error(nn.AvgPool2d(2), turn, image) > 0.1
    assert equivariance_error(nn.MaxPool2d(3, 2, 1), turn, torch.randn(1, 2, 28, 28)) > 0.1


def test_the_pool_averages_pairs_or_overlapping_pairs():
    pool = HalvingPool()
    assert pool(torch.tensor([[[[1.0, 3.0, 5.0, 7.0]] * 2]])).tolist() == [[[[2.0, 6.0]]]]
    odd = pool(torch.tensor([[[[1.0, 3.0, 8.0]] * 3]]))
    assert odd.tolist() == [[[[2.0, 5.5]] * 2]]  # (1 + 3) / 2 and (3 + 8) / 2


@pytest.mark.parametrize(
    "sides", [(28, 28), (7, 10), (1, 1), (1, 6), (5, 4, 8), (1, 2, 3)], ids=str
)
def test_blurring_weighs_neighbours_by_one_two_one(sides):
    image = torch.randn(2, 3, *sides, dtype=torch.float64)
    blurred = image
    for axis in range(2, image.dim()):
        first, last = blurred.narrow(axis, 0, 1), blurred.narrow(axis, sides[axis - 2] - 1, 1)
        repeated = torch.cat([first, blurred, last], axis)
        before, here, after = (repeated.narrow(axis, i, sides[axis - 2]) for i in range(3))
        blurred = (before + 2 * here + after) / 4
    torch.testing.assert_close(HalvingPool(blurs=True)(image), HalvingPool()(blurred))


def test_blurred_pools_answer_less_to_where_the_grid_begins():
    stripes = torch.tensor([1.0, 1.0, -1.0, -1.0]).repeat(1, 1, 16, 4)
    moved = stripes.roll(1, -1)  # the pool's windows now hold one of each
    for pool, change in ((HalvingPool(), 1.0), (HalvingPool(blurs=True), 0.5)):
        inner = (pool(stripes) - pool(moved))[..., 1:-1]
        assert inner.abs().max() == change


# The parts


@pytest.mark.parametrize("name", CLASSIFIERS)
@pytest.mark.parametrize("side", [24, 28, 33])
def test_the_stages_halve_and_the_head_finishes(name, side):
    model, image = network(name), torch.randn(3, 2, side, side)
    features = model.forward_features(image)
    assert tuple(features) == STAGES
    wide = 4 if name.endswith("50") else 1
    assert [maps.shape[1] for maps in features.values()] == [4, *(wide * c for c in (4, 8, 16, 32))]
    sides = [maps.shape[-1] for maps in features.values()]
    assert sides[0] == sides[1] == side
    assert all(small == -(-large // 2) for large, small in pairwise(sides[1:]))
    logits = model.forward_head(features["stage4"])
    assert logits.shape == (3, 5)
    assert torch.equal(logits, model(image))


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_images_of_a_batch_do_not_mix(name):
    model, images = network(name).double(), torch.randn(3, 2, 28, 28, dtype=torch.float64)
    alone = torch.cat([model(image[None]) for image in images])
    torch.testing.assert_close(model(images), alone, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("values", [PASS_VALUES, 7 * 4 * 24**2, 1])
def test_many_images_pass_in_parts_with_the_same_logits(values, monkeypatch):
    monkeypatch.setattr("sre.resnet.PASS_VALUES", values)
    model, images = network("sre_resnet18"), torch.randn(2 * PASS_IMAGES + 1, 2, 24, 24)
    at_once = model.forward_head(model.forward_features(images)["stage4"])
    with torch.inference_mode():
        torch.testing.assert_close(model(images), at_once, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(model(images), at_once, rtol=1e-4, atol=1e-4)


def test_no_image_gives_no_logits():
    assert network("sre_resnet18")(torch.zeros(0, 2, 28, 28)).shape == (0, 5)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_kernels_are_drawn_by_their_fan_out(name):
    model = build_model(name, in_channels=3, num_classes=4, width=32)
    for module in model.modules():
        if isinstance(module, nn.Conv2d) or hasattr(module, "kernel"):
            fan_out = module.out_channels * module.kernel_size[0] ** 2
            spread = float(module.weight.detach().std())
            assert spread == pytest.approx((2 / fan_out) ** 0.5, rel=0.1)


def test_the_two_families_differ_in_nothing_but_the_kernels():
    sre, plain = network("sre_resnet18"), network("resnet18")
    for (name, mine), theirs in zip(sre.named_modules(), plain.modules(), strict=True):
        if isinstance(theirs, nn.Conv2d) and not isinstance(mine, nn.Conv2d):
            assert (mine.in_channels, mine.out_channels) == (
                theirs.in_channels,
                theirs.out_channels,
            )
            continue
        assert type(mine) is type(theirs), name


def test_the_plain_network_is_what_pytorch_says():
    """A golden case: its first block by hand."""
    model, x = network("resnet18"), torch.randn(2, 4, 8, 8)
    block = model.stage2[0]
    pooled = F.avg_pool2d(x, 2)
    inner = F.relu(block.norm1(F.conv2d(pooled, block.conv1.weight, padding=1)))
    inner = block.norm2(F.conv2d(inner, block.conv2.weight, padding=1))
    shortcut = block.shortcut[1](F.conv2d(pooled, block.shortcut[0].weight))
    torch.testing.assert_close(block(x), F.relu(inner + shortcut))
