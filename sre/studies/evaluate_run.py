"""How right are networks on a data set, whichever way its images lie, and how sure is that?"""

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path

import numpy as np

from sre.checkpoints import CheckpointCard
from sre.data.split import Split
from sre.data.store import load_split
from sre.data.table import find_dataset
from sre.errors import SettingError
from sre.evaluation import ANGLES_DEG, classify, decide
from sre.protocols import find_protocol
from sre.statistics import (
    Interval,
    areas_under_curve,
    balanced_accuracies,
    bootstrap_weights,
    interval,
    paired_p_value,
)
from sre.studies.contenders import Contender, load_contenders

RESAMPLES = 1000
# Areas under the curve are sorted anew for every class and angle: fewer samples do.
AREA_RESAMPLES = 200


@dataclass(frozen=True, slots=True)
class Measured:
    """One network has answered all images at one angle."""

    name: str
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class AngleFigures:
    """A network at one angle."""

    angle_deg: float
    accuracy: Interval  # of multi-label sets the mean over labels
    balanced_accuracy: Interval | None  # None for multi-label sets
    auc: Interval  # one class against the rest, mean over classes
    auc_by_label: tuple[float, ...]
    consistency: Interval  # share of images with the same answer as at the first angle


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
    accuracy_spread: float  # standard deviation over the angles
    worst_angle_deg: float
    balanced_accuracy_mean: Interval | None
    auc_mean: Interval
    consistency: Interval
    confusion: np.ndarray  # (angles, K, K): how many of each class got each answer; or (0, K, K)

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


@dataclass(frozen=True, slots=True)
class EvaluationView:
    """All networks on one data set."""

    dataset: str
    split: str
    images: int
    protocol: str
    resamples: int
    models: tuple[ModelFigures, ...]
    pairs: tuple[PairFigures, ...]

    @property
    def headline(self) -> str:
        """Say in words who is best over all angles, and whether that is sure."""
        best, *others = sorted(self.models, key=lambda m: -m.accuracy_mean.value)
        said = f"{best.name} is right at {best.accuracy_mean.value:.1%} over all angles"
        if not others:
            return f"{said}, and at {best.accuracy_worst.value:.1%} at the worst."
        pair = next(p for p in self.pairs if {p.first, p.second} == _names(best, others[0]))
        sure = "more than chance explains" if pair.mean_p < 0.05 else "which may be chance"
        gap = abs(pair.mean.value)
        return f"{said}, {100 * gap:.1f} points before {others[0].name}, {sure}."


def _names(*models: ModelFigures) -> set[str]:
    return {model.name for model in models}


def run_evaluation(
    dataset: str,
    checkpoints: Sequence[Path],
    *,
    data_dir: Path,
    protocol: str = "disc",
    split: str = "test",
    angles_deg: Sequence[float] = ANGLES_DEG,
    resamples: int = RESAMPLES,
    average_rotations: int = 1,
    device: str = "cpu",
    keep_dir: Path | None = None,
) -> Iterator[Measured | EvaluationView]:
    """Evaluate networks at every angle; the last event is the view.

    With ``average_rotations`` above 1, each network's average over so many rotations of the image
    comes after it as a further one (see `sre.averaging`).

    What a network answered at an angle is kept in ``keep_dir``, so that an evaluation that was
    broken off goes on where it stopped, and one with another network more costs only that one.

    Raises: SREError: the data set or a checkpoint is not there or does not fit; a setting is out
        of range
    """
    entry, chosen = find_dataset(dataset), find_protocol(protocol)
    if entry.dimensions != 2:
        raise SettingError(f"{entry.title} holds volumes; choose a 2-D data set")
    if not angles_deg or len(set(angles_deg)) < len(angles_deg):
        raise SettingError("give one angle or more, each once; try 0, 10, ..., 350")
    if not 100 <= resamples <= 100_000:
        raise SettingError(f"resamples must be from 100 to 100000, got {resamples}; try 1000")
    if split not in ("val", "test"):
        raise SettingError(f"the split must be val or test, got {split!r}")
    contenders = load_contenders(
        checkpoints, entry, chosen, average_rotations=average_rotations, device=device
    )
    data = load_split(dataset, split, data_dir=data_dir)
    weights = bootstrap_weights(len(data), resamples=resamples)
    mark = mark_of(data)
    total, models, scores = len(contenders) * len(angles_deg), [], {}
    for number, who in enumerate(contenders):
        answers = []
        for i, angle in enumerate(angles_deg):
            answers.append(answers_at(who, data, mark, protocol, angle, keep_dir=keep_dir))
            yield Measured(who.name, number * len(angles_deg) + i + 1, total)
        figures, scores[who.name] = _figures(
            who, np.stack(answers), data.labels, angles_deg, weights
        )
        models.append(figures)
    pairs = tuple(_compare(a, b, scores, weights) for a, b in combinations(scores, 2))
    yield EvaluationView(dataset, split, len(data), protocol, resamples, tuple(models), pairs)


def mark_of(data: Split) -> str:
    """Tell images and labels apart from all others, 64 hex digits."""
    return hashlib.sha256(data.images.tobytes() + data.labels.tobytes()).hexdigest()


def answers_at(
    who: Contender,
    data: Split,
    mark: str,
    protocol: str,
    angle_deg: float,
    *,
    keep_dir: Path | None = None,
) -> np.ndarray:
    """Give a contender's probabilities (N, K) at one angle, from ``keep_dir`` if they are there."""
    key = f"{who.digest}-{mark}-{protocol}-{angle_deg:g}"
    if who.rotations > 1:
        key += f"-{who.rotations}"
    answer = partial(
        classify, who.model, data.images, find_protocol(protocol), side_px=who.card.side_px,
        angle_deg=angle_deg, is_multi_label=who.card.is_multi_label,
    )  # fmt: skip
    return _kept(keep_dir, key, answer)


def _kept(folder: Path | None, key: str, compute: Callable[[], np.ndarray]) -> np.ndarray:
    # A file that cannot be read is computed anew, one that cannot be written costs time only.
    if folder is None:
        return compute()
    path = folder / f"{hashlib.sha256(key.encode()).hexdigest()}.npy"
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        found = compute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=folder, suffix=".part")
        try:
            with os.fdopen(handle, "wb") as file:
                np.save(file, found)
            Path(name).replace(path)
        finally:
            Path(name).unlink(missing_ok=True)
    except OSError:
        pass
    return found


def _figures(
    who: Contender,
    answers: np.ndarray,
    labels: np.ndarray,
    angles_deg: Sequence[float],
    weights: np.ndarray,
) -> tuple[ModelFigures, np.ndarray]:
    card = who.card
    predictions = decide(answers, is_multi_label=card.is_multi_label)
    right, same = predictions == labels[None], predictions == predictions[:1]
    if card.is_multi_label:
        right, same = right.mean(-1), same.mean(-1)
    accuracy = weights @ right.T  # (samples, angles)
    stays = weights @ same.T
    balanced = None if card.is_multi_label else balanced_accuracies(weights, right, labels)
    truth = labels == 1 if labels.ndim == 2 else labels[:, None] == np.arange(answers.shape[-1])
    few = weights[: 1 + AREA_RESAMPLES]
    areas = np.stack(
        [
            np.stack([areas_under_curve(few, truth[:, k], p[:, k]) for k in range(p.shape[-1])], -1)
            for p in answers
        ],
        axis=1,
    )  # (samples, angles, classes)
    auc = np.nanmean(areas, axis=-1)
    angles = tuple(
        AngleFigures(
            angle,
            interval(accuracy[:, i]),
            None if balanced is None else interval(balanced[:, i]),
            interval(auc[:, i]),
            tuple(areas[0, i].tolist()),
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
        float(accuracy[0].std()),
        float(angles_deg[int(accuracy[0].argmin())]),
        None if balanced is None else interval(balanced.mean(1)),
        interval(auc.mean(1)),
        interval(stays.mean(1)),
        confusion,
    )
    return figures, right.astype(float)


def _compare(
    first: str, second: str, scores: dict[str, np.ndarray], weights: np.ndarray
) -> PairFigures:
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
