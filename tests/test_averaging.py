import pytest
import torch
from torch import nn

from sre.averaging import RotationAverage
from sre.symmetry import rotate
from tests.networks import tiny_network


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(3, 1, 28, 28)


def slanted() -> nn.Module:
    """A classifier that no turn leaves as it is."""
    return nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, 4))


@pytest.mark.parametrize("rotations", [2, 3, 8])
def test_softmax_gives_the_mean_probabilities_back(images, rotations):
    model = slanted()
    turned = [rotate(images, angle_deg=360 * k / rotations) for k in range(rotations)]
    mean = torch.stack([model(x).softmax(1) for x in turned]).mean(0)
    found = RotationAverage(model, rotations)(images)
    torch.testing.assert_close(found.exp(), mean, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.softmax(1), mean, atol=1e-5, rtol=0)


def test_sigmoid_gives_the_mean_probabilities_of_labels_back(images):
    model = slanted()
    turned = [rotate(images, angle_deg=45.0 * k) for k in range(8)]
    mean = torch.stack([model(x).sigmoid() for x in turned]).mean(0)
    found = RotationAverage(model, is_multi_label=True)(images)
    torch.testing.assert_close(found.sigmoid(), mean, atol=1e-5, rtol=0)


def test_confident_networks_do_not_overflow(images):
    model = slanted()
    with torch.no_grad():
        model[1].weight.mul_(1e4)
    for is_multi_label in (False, True):
        assert RotationAverage(model, is_multi_label=is_multi_label)(images).isfinite().all()


@torch.inference_mode()
def test_quarter_turns_change_nothing_of_the_average_and_much_of_its_network(images):
    model = slanted()
    for of, differs in ((RotationAverage(model), False), (model, True)):
        gap = (of(images) - of(images.rot90(1, (-2, -1)))).abs().max()
        assert (gap > 1e-2) == differs
        assert differs or gap < 1e-5


@torch.inference_mode()
def test_a_network_that_is_invariant_already_keeps_its_answers_at_quarter_turns(images):
    model = tiny_network()
    found = RotationAverage(model, 4)(images)
    torch.testing.assert_close(found, model(images).log_softmax(1), atol=1e-4, rtol=1e-5)


def test_nearest_neighbour_keeps_to_the_values_of_the_image(images):
    class Recording(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            assert set(x.unique().tolist()) <= {0.0, 1.0}
            return x.mean((-1, -2))

    RotationAverage(Recording(), interpolation="nearest")((images > 0).float())


@pytest.mark.parametrize("rotations", [0, 1, 73])
def test_counts_out_of_range_are_refused(rotations):
    with pytest.raises(ValueError, match=f"^rotations must be from 2 to 72, got {rotations}; try"):
        RotationAverage(slanted(), rotations)
