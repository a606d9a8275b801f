"""What is told of a network's answers: figures with intervals, and the networks in pairs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sre.checkpoints import CheckpointCard
from sre.evaluation import decide
from sre.poses import Condition, Pose
from sre.statistics import (
    Interval,
    areas_by_class,
    balanced_accuracies,
    interval,
    paired_p_value,
)
from sre.studies.contenders import Contender

# Areas under the curve are sorted anew for every class and angle: fewer samples do.
AREA_RESAMPLES = 200
Answers = Mapping[tuple[str, Pose], np.ndarray]


@dataclass(frozen=True, slots=True)
class AngleFigures:
    """A network at one angle."""

    angle_deg: float
    accuracy: Interval  # of multi-label sets the mean over labels
    balanced_accuracy: Interval | None  # None for multi-label sets
    auc: Interval  # one class against the rest, mean over classes
    auc_by_label: tuple[Interval | None, ...]  # None where no image has it, or every one
    consistency: Interval  # share of images with the same answer as at the first angle


@dataclass(frozen=True, slots=True)
class ConditionFigures:
    """A network under a further condition, over all its poses."""

    name: str
    title: str
    poses: int
    accuracy: Interval  # mean over the poses
    consistency: Interval  # with the answer at the first angle


@dataclass(frozen=True, slots=True)
class ModelFigures:
    """A network over all angles, or its average over rotations of the image."""

    name: str  # unlike all others' of the evaluation
    checkpoint: str
    card: CheckpointCard
    rotations: int  # that are averaged; 1: the network as it is
    angles: tuple[AngleFigures, ...]
    accuracy_mean: Interval
    accuracy_worst: Interval  # of the angle that is worst in each bootstrap sample
    accuracy_spread: Interval  # standard deviation over the angles; drawing images adds to it
    worst_angle_deg: float
    balanced_accuracy_mean: Interval | None
    auc_mean: Interval
    consistency: Interval
    confusion: np.ndarray  # (angles, K, K): how many of each class got each answer; or (0, K, K)
    predictions: np.ndarray  # (angles, N) classes, or (angles, N, K) zeros and ones
    conditions: tuple[ConditionFigures, ...]
    is_exact: bool  # all quarter turns have the same answers (see `Asking.ask`)

    @property
    def multiply_adds(self) -> int:
        """Give those of one image: an average asks its network once a rotation."""
        return self.card.multiply_adds * self.rotations


@dataclass(frozen=True, slots=True)
class PairFigures:
    """One network less another, image by image."""

    first: str
    second: str
    upright: Interval
    upright_p: float
    mean: Interval
    mean_p: float


def figures_of(
    who: Contender,
    answers: Answers,
    labels: np.ndarray,
    angles_deg: Sequence[float],
    weights: np.ndarray,
    *,
    conditions: Sequence[Condition] = (),
) -> tuple[ModelFigures, np.ndarray]:
    """Sum up a network's answers, and give its score of each image, (angles, N), for comparing."""
    card, stacked = who.card, np.stack([answers[who.name, Pose(angle)] for angle in angles_deg])
    predictions = decide(stacked, is_multi_label=card.is_multi_label)
    right, same = predictions == labels[None], predictions == predictions[:1]
    if card.is_multi_label:
        right, same = right.mean(-1), same.mean(-1)
    accuracy = weights @ right.T  # (samples, angles)
    stays = weights @ same.T
    balanced = None if card.is_multi_label else balanced_accuracies(weights, right, labels)
    few = np.asfortranarray(weights[: 1 + AREA_RESAMPLES])  # an image's weights side by side
    # (samples, angles, classes)
    areas = np.stack([areas_by_class(few, p, labels) for p in stacked], axis=1)
    auc = np.nanmean(areas, axis=-1)
    angles = tuple(
        AngleFigures(
            angle,
            interval(accuracy[:, i]),
            None if balanced is None else interval(balanced[:, i]),
            interval(auc[:, i]),
            tuple(_interval_of_label(of_label) for of_label in areas[:, i].T),
            interval(stays[:, i]),
        )
        for i, angle in enumerate(angles_deg)
    )
    count = 0 if card.is_multi_label else len(angles_deg)
    confusion = np.zeros((count, len(card.classes), len(card.classes)), int)
    for matrix, of_angle in zip(confusion, predictions, strict=False):
        np.add.at(matrix, (labels, of_angle), 1)
    figures = ModelFigures(
        who.name,
        who.path.name,
        card,
        who.rotations,
        angles,
        interval(accuracy.mean(1)),
        interval(accuracy.min(1)),
        interval(accuracy.std(1)),
        float(angles_deg[int(accuracy[0].argmin())]),
        None if balanced is None else interval(balanced.mean(1)),
        interval(auc.mean(1)),
        interval(stays.mean(1)),
        confusion,
        predictions.astype(np.int16),
        tuple(
            _condition(each, who, answers, labels, predictions[0], weights) for each in conditions
        ),
        _is_exact(stacked, angles_deg),
    )
    return figures, right.astype(float)


def _interval_of_label(samples: np.ndarray) -> Interval | None:
    # Few images, as of a quick look, may lack a label.
    is_known = np.isfinite(samples[0]) and np.isfinite(samples[1:]).any()
    return interval(samples) if is_known else None


def _is_exact(answers: np.ndarray, angles_deg: Sequence[float]) -> bool:
    first: dict[float, np.ndarray] = {}
    pairs = [
        np.array_equal(first.setdefault(angle % 90, at), at)
        for angle, at in zip(angles_deg, answers, strict=True)
    ]
    return len(first) < len(pairs) and all(pairs)


def _condition(
    condition: Condition,
    who: Contender,
    answers: Answers,
    labels: np.ndarray,
    upright: np.ndarray,
    weights: np.ndarray,
) -> ConditionFigures:
    found = np.stack([answers[who.name, pose] for pose in condition.poses])
    predictions = decide(found, is_multi_label=who.card.is_multi_label)
    right, same = predictions == labels[None], predictions == upright[None]
    if who.card.is_multi_label:
        right, same = right.mean(-1), same.mean(-1)
    return ConditionFigures(
        condition.name,
        condition.title,
        len(condition.poses),
        interval(weights @ right.mean(0)),
        interval(weights @ same.mean(0)),
    )


def compare(
    first: str, second: str, scores: Mapping[str, np.ndarray], weights: np.ndarray
) -> PairFigures:
    """Compare two networks by their scores of the same images."""
    difference = scores[first] - scores[second]  # (angles, images)
    upright, mean = difference[0], difference.mean(0)
    return PairFigures(
        first,
        second,
        interval(weights @ upright),
        paired_p_value(upright),
        interval(weights @ mean),
        paired_p_value(mean),
    )
