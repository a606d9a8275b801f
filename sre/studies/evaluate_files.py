"""An evaluation as files: everything as JSON, or a row a figure as CSV."""

import csv
import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from sre.errors import SettingError
from sre.statistics import Interval
from sre.studies.evaluate_figures import ModelFigures
from sre.studies.evaluate_run import EvaluationView
from sre.whole import replacing

SUFFIXES = (".json", ".csv")
_COLUMNS = ("network", "angle_deg", "figure", "value", "low", "high")


def check_output(path: Path) -> None:
    """Refuse, before anything is computed, a file that could not be written.

    Raises: SettingError: what is wrong with it
    """
    if path.suffix not in SUFFIXES:
        raise SettingError(f"{path.name} must end in {' or '.join(SUFFIXES)}; name it so")
    if path.is_dir() or not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise SettingError(f"cannot write {path}; choose a folder that is there and yours to write")


def write_evaluation(view: EvaluationView, path: Path) -> None:
    """Write the file whole or not at all, as its ending says.

    Raises: SettingError: it cannot be written
    """
    try:
        with replacing(path) as part, part.open("w", encoding="utf-8", newline="") as file:
            if path.suffix == ".csv":
                csv.writer(file).writerows([_COLUMNS, *rows(view)])
            else:
                file.write(json.dumps(as_json(view), indent=1) + "\n")
    except OSError as error:
        raise SettingError(
            f"cannot write {path}: {error.strerror}; free some space or choose another folder"
        ) from error


def as_rows(view: EvaluationView) -> Iterator[tuple[object, ...]]:
    """Give the table of a CSV file, its head first; no field needs quotes but the names."""
    yield _COLUMNS
    for name, *others in rows(view):
        yield f'"{name}"', *others


Row = tuple[str, str, str, float, float | str, float | str]


def rows(view: EvaluationView) -> Iterator[Row]:
    """Give a row a figure; those over all angles have no angle, those of a pair two names.

    The p values of a pair have no bounds.
    """
    for model in view.models:
        for at in model.angles:
            for name in ("accuracy", "balanced_accuracy", "auc", "consistency"):
                yield from _row(model.name, f"{at.angle_deg:g}", name, getattr(at, name))
            for number, found in enumerate(at.auc_by_label):
                yield from _row(model.name, f"{at.angle_deg:g}", f"auc_class_{number}", found)
        for name in _OVERALL:
            yield from _row(model.name, "", name, getattr(model, name))
        for under in model.conditions:
            for name in ("accuracy", "consistency"):
                yield from _row(model.name, "", f"{under.name}_{name}", getattr(under, name))
    for pair in view.pairs:
        names = f"{pair.first} less {pair.second}"
        yield from _row(names, "0", "accuracy", pair.upright)
        yield from _row(names, "", "accuracy_mean", pair.mean)
        yield names, "0", "accuracy_p", pair.upright_p, "", ""
        yield names, "", "accuracy_mean_p", pair.mean_p, "", ""


_OVERALL = (
    "accuracy_mean", "accuracy_worst", "accuracy_spread", "balanced_accuracy_mean", "auc_mean",
    "consistency",
)  # fmt: skip


def _row(network: str, angle: str, name: str, found: Interval | None) -> Iterator[Row]:
    if found is not None:
        yield network, angle, name, found.value, found.low, found.high


def as_json(view: EvaluationView) -> dict[str, object]:
    """Give everything as plain values; of each network's card what tells it apart."""
    return {
        "dataset": view.dataset, "split": view.split, "images": view.images,
        "of_images": view.of_images,
        "protocol": view.protocol, "resamples": view.resamples, "headline": view.headline,
        "models": [_model(model) for model in view.models],
        "pairs": [asdict(pair) for pair in view.pairs],
    }  # fmt: skip


def _model(model: ModelFigures) -> dict[str, object]:
    card = model.card
    told = {
        "model": card.model, "width": card.width, "rotates_in_training": card.rotates_in_training,
        "parameters": card.parameters, "seed": card.seed,
    }  # fmt: skip
    figures = {
        name: asdict(found) if isinstance(found, Interval) else found
        for name in (*_OVERALL, "worst_angle_deg")
        if (found := getattr(model, name)) is not None
    }
    return {
        "name": model.name,
        "checkpoint": model.checkpoint,
        "averaged_rotations": model.rotations,
        "multiply_adds": model.multiply_adds,
        "card": told,
        **figures,
        "angles": [asdict(angle) for angle in model.angles],
        "conditions": [asdict(condition) for condition in model.conditions],
        "is_exact_at_quarter_turns": model.is_exact,
        "confusion": model.confusion.tolist(),
    }
