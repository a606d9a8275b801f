from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from sklearn.metrics import roc_auc_score
from torch import nn

from sre.evaluation import (
    ANGLES_DEG,
    FEW_ANGLES_DEG,
    AngleDone,
    auc,
    classify,
    consistency,
    decide,
    evaluate_angles,
    probabilities,
    summarise,
)
from sre.protocols import PROTOCOLS
from tests.networks import CARD, tiny_network

DISC = PROTOCOLS["disc"]


class Brightness(nn.Module):
    """A classifier that a person can follow: class 1 where the mean, -1 to 1, is above 0."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(8.0), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean = self.gain * x.mean((1, 2, 3))
        return torch.stack([-mean, mean], 1)


def greys(*values: int) -> np.ndarray:
    return np.stack([np.full((28, 28), value, np.uint8) for value in values])


def test_angles_begin_upright_and_go_round():
    assert list(ANGLES_DEG) == list(range(0, 360, 10))
    assert list(FEW_ANGLES_DEG) == list(range(0, 360, 30))


def test_probabilities_are_a_softmax_or_a_sigmoid_a_label():
    logits = torch.tensor([[0.0, np.log(3.0)]])
    assert_allclose(probabilities(logits, is_multi_label=False), [[0.25, 0.75]], rtol=1e-6)
    assert_allclose(probabilities(logits, is_multi_label=True), [[0.5, 0.75]], rtol=1e-6)


def test_decisions_are_the_likeliest_class_or_every_label_from_a_half_on():
    found = np.array([[0.5, 0.2, 0.3], [0.1, 0.45, 0.45]])
    assert decide(found, is_multi_label=False).tolist() == [0, 1]  # the first of equals
    assert decide(found, is_multi_label=True).tolist() == [[1, 0, 0], [0, 0, 0]]


def test_consistency_counts_the_predictions_that_stay_as_upright():
    assert consistency(np.array([[1, 2], [1, 3], [1, 3], [0, 2]])) == 5 / 8
    assert consistency(np.array([[1, 1]])) == 1
    multi = np.array([[[0, 1]], [[0, 0]]])  # two angles, one image, two labels
    assert consistency(multi) == 3 / 4


def test_auc_by_hand():
    truth, score = np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.35, 0.8])
    found = np.stack([1 - score, score], 1)
    assert auc(found, truth) == pytest.approx(0.75)  # 3 of the 4 pairs are in order


def test_auc_of_many_classes_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 4
    found = rng.dirichlet(np.ones(4), 60)
    expected = roc_auc_score(labels, found, multi_class="ovr", average="macro")
    assert auc(found, labels) == pytest.approx(expected)


def test_auc_of_many_labels_is_that_of_scikit_learn():
    rng = np.random.default_rng(1)
    labels, found = rng.integers(0, 2, (50, 3)), rng.random((50, 3))
    expected = roc_auc_score(labels, found, average="macro")
    assert auc(found, labels.astype(np.uint8)) == pytest.approx(expected)


def test_auc_counts_ties_by_half():
    truth, score = np.array([1, 0, 1, 0, 0]), np.array([0.5, 0.5, 0.9, 0.5, 0.1])
    found = np.stack([1 - score, score], 1)
    assert auc(found, truth) == pytest.approx(5 / 6)  # 4 of the 6 pairs are in order, 2 are ties
    assert auc(found, truth) == pytest.approx(roc_auc_score(truth, score))


def test_auc_passes_over_classes_that_do_not_occur_both_ways():
    rng = np.random.default_rng(2)
    labels, found = np.array([0, 0, 1, 1]), rng.random((4, 3))
    expected = np.mean([roc_auc_score(labels == k, found[:, k]) for k in (0, 1)])
    assert auc(found, labels) == pytest.approx(expected)
    assert auc(found, np.zeros(4, int)) is None
    assert auc(found, np.ones((4, 3), np.uint8)) is None


@pytest.mark.parametrize("batch_size", [1, 2, 5, 128])
def test_the_answer_does_not_hang_on_the_batch(batch_size):
    images = np.random.default_rng(0).integers(0, 256, (5, 28, 28), np.uint8)
    model = tiny_network()
    settings = {"side_px": 28, "angle_deg": 20.0, "is_multi_label": False}
    found = classify(model, images, DISC, **settings, batch_size=batch_size)
    assert found.shape == (5, 10)
    assert_allclose(found.sum(1), 1, rtol=1e-5)
    assert_allclose(found, classify(model, images, DISC, **settings), atol=1e-6)


def test_multi_label_answers_are_a_probability_a_label():
    images = greys(0, 255)
    found = classify(Brightness(), images, DISC, side_px=28, angle_deg=0.0, is_multi_label=True)
    assert found.shape == (2, 2)
    assert_allclose(found[0], found[0, ::-1].copy()[::-1])
    assert found[1, 1] > 0.9 > 0.1 > found[1, 0]


def test_accuracy_by_hand():
    # The classifier calls greys of 0, 50, 255 and 250: 0, 0, 1, 1.
    images, labels = greys(0, 50, 255, 250), np.array([0, 1, 1, 1])
    settings = {"side_px": 28, "is_multi_label": False, "angles_deg": (0.0, 90.0)}
    done = list(evaluate_angles(Brightness(), images, labels, DISC, **settings))
    assert [d.angle_deg for d in done] == [0, 90]
    assert [d.accuracy for d in done] == [0.75, 0.75]
    assert done[0].auc == 1
    assert done[0].predictions.tolist() == [0, 0, 1, 1]


def test_accuracy_of_many_labels_is_the_mean_over_labels():
    images = greys(0, 255)  # found: (1, 0) and (0, 1)
    labels = np.array([[1, 0], [1, 1]], np.uint8)
    settings = {"side_px": 28, "is_multi_label": True, "angles_deg": (0.0,)}
    (done,) = evaluate_angles(Brightness(), images, labels, DISC, **settings)
    assert done.accuracy == 0.75


def test_the_summary_takes_the_worst_angle_and_the_first():
    def done(angle_deg: float, accuracy: float, predictions: list[int]) -> AngleDone:
        return AngleDone(angle_deg, accuracy, 0.9 - angle_deg / 1000, np.array(predictions))

    found = summarise(
        [done(0.0, 0.75, [0, 1, 2, 3]), done(30.0, 0.25, [0, 1, 0, 0]), done(60.0, 0.5, [0] * 4)]
    )
    assert found == {
        "images": 4,
        "angles": 3,
        "accuracy_at_0": 0.75,
        "accuracy_mean": 0.5,
        "accuracy_std": pytest.approx((0.125 / 3) ** 0.5),
        "accuracy_worst": 0.25,
        "worst_angle_deg": 30.0,
        "auc_at_0": 0.9,
        "consistency": pytest.approx((4 + 2 + 1) / 12),
    }


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=lambda p: p.name)
@pytest.mark.parametrize(("model", "is_exact"), [("sre_resnet18", True), ("resnet18", False)])
def test_sre_answers_alike_at_quarter_turns_and_a_plain_network_does_not(protocol, model, is_exact):
    images = np.random.default_rng(0).integers(0, 256, (6, 28, 28), np.uint8)
    network = tiny_network(replace(CARD, model=model))
    found = np.stack(
        [
            classify(network, images, protocol, side_px=28, angle_deg=angle, is_multi_label=False)
            for angle in (0.0, 90.0, 180.0, 270.0)
        ]
    )
    difference = np.abs(found - found[:1]).max()
    assert difference < 1e-5 if is_exact else difference > 1e-3
