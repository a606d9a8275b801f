"""How right are networks on a data set, whichever way its images lie, and how sure is that?"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from sre.data.split import Split
from sre.data.store import load_split
from sre.data.table import find_dataset
from sre.errors import SettingError
from sre.evaluation import ANGLES_DEG
from sre.poses import FLIPS, PLACINGS, Pose
from sre.protocols import find_protocol
from sre.statistics import bootstrap_weights
from sre.studies.answering import Asking, Measured, mark_of
from sre.studies.contenders import load_contenders
from sre.studies.evaluate_figures import ModelFigures, PairFigures, compare, figures_of

RESAMPLES = 1000


@dataclass(frozen=True, slots=True)
class EvaluationView:
    """All networks on one data set."""

    dataset: str
    split: str
    images: int
    of_images: int  # in the split
    protocol: str
    resamples: int
    models: tuple[ModelFigures, ...]
    pairs: tuple[PairFigures, ...]
    indices: np.ndarray  # of the images in the split
    labels: np.ndarray

    @property
    def headline(self) -> str:
        """Say in words who is best over all angles, and whether that is sure."""
        if find_dataset(self.dataset).is_multi_label:
            return self._headline_of_labels()
        best, *others = sorted(self.models, key=lambda m: -m.accuracy_mean.value)
        said = f"{best.name} is right at {100 * best.accuracy_mean.value:.1f} % over all angles"
        if not others:
            return f"{said}, and at {100 * best.accuracy_worst.value:.1f} % at the worst."
        pair = next(p for p in self.pairs if {p.first, p.second} == _names(best, others[0]))
        sure = "more than chance explains" if pair.mean_p < 0.05 else "which may be chance"
        gap = abs(pair.mean.value)
        return f"{said}, {100 * gap:.1f} points before {others[0].name}, {sure}."

    def _headline_of_labels(self) -> str:
        # Accuracy would praise a network that says no throughout: most labels are.
        best, *others = sorted(self.models, key=lambda m: -m.auc_mean.value)
        said = f"{best.name} ranks images by label with an area under the curve of "
        said += f"{best.auc_mean.value:.3f}, the mean over labels and angles"
        if not others:
            return f"{said}."
        gap = best.auc_mean.value - others[0].auc_mean.value
        is_apart = best.auc_mean.low > others[0].auc_mean.high
        sure = "their intervals are apart" if is_apart else "which may be chance"
        return f"{said}, {gap:.3f} before {others[0].name}, {sure}."


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
    with_placings: bool = False,
    most_images: int | None = None,
    device: str = "cpu",
    keep_dir: Path | None = None,
) -> Iterator[Measured | EvaluationView]:
    """Evaluate networks at every angle; the last event is the view.

    With ``average_rotations`` above 1, each network's average over so many rotations of the image
    comes after it as a further one (see `sre.averaging`). Mirrored images are a further condition;
    with ``with_placings`` scaled and shifted ones are, too. ``most_images`` takes a random part of
    the split, always the same.

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
    if most_images is not None and most_images < 1:
        raise SettingError(f"most_images must be at least 1, got {most_images}; try 256")
    contenders = load_contenders(
        checkpoints, entry, chosen, average_rotations=average_rotations, device=device
    )
    data = load_split(dataset, split, data_dir=data_dir)
    indices = choose_images(data, most_images)
    images, labels = data.images[indices], data.labels[indices]
    asking = Asking(
        contenders, images, chosen, entry.is_multi_label, mark_of(images, labels), device, keep_dir,
    )  # fmt: skip
    conditions = FLIPS + PLACINGS if with_placings else FLIPS
    poses = [Pose(angle) for angle in angles_deg]
    answers = {}
    for event in asking.ask([*poses, *(pose for each in conditions for pose in each.poses)]):
        if isinstance(event, Measured):
            yield event
        else:
            answers = event
    weights = bootstrap_weights(len(images), resamples=resamples)
    models, scores = [], {}
    for who in contenders:
        figures, scores[who.name] = figures_of(
            who, answers, labels, angles_deg, weights,
            conditions=conditions,
        )  # fmt: skip
        models.append(figures)
    yield EvaluationView(
        dataset,
        split,
        len(images),
        len(data),
        protocol,
        resamples,
        tuple(models),
        tuple(compare(a, b, scores, weights) for a, b in combinations(scores, 2)),
        indices,
        labels,
    )


def choose_images(data: Split, most: int | None) -> np.ndarray:
    """Give the indices of at most so many images, spread over the split and always the same."""
    if most is None or most >= len(data):
        return np.arange(len(data))
    return np.sort(np.random.default_rng(0).choice(len(data), most, replace=False))
