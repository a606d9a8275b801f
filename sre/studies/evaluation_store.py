"""Finished evaluations as the page takes them, kept on disk: one JSON and one array file each."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from sre.data.table import find_dataset
from sre.studies.evaluate_figures import ModelFigures
from sre.studies.evaluate_files import as_json, as_rows
from sre.studies.evaluate_run import EvaluationView
from sre.studies.naming import kind_of, tell_apart
from sre.whole import replacing

VERSION = 2
MOST_CHANGES = 12  # told of a network and angle
MOST_KEPT = 64
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class KeptAnswers:
    """What each network answered, image by image."""

    indices: np.ndarray  # (N,) in the split
    labels: np.ndarray  # (N,)
    predictions: np.ndarray  # (networks, angles, N)


@dataclass(frozen=True, slots=True)
class EvaluationStore:
    """A folder of finished evaluations; what cannot be read there is as if it were not."""

    folder: Path

    def save(
        self, view: EvaluationView, settings: Json, stamps: Json, titles: Sequence[str]
    ) -> Json:
        """Keep an evaluation, if the disk takes it, and give what the page shows of it.

        Args: settings: what was asked; stamps: what the result hangs on, see ``newest``; titles:
            of the networks, averages aside
        """
        told = json.dumps([VERSION, view.dataset, settings, stamps], sort_keys=True)
        name = hashlib.sha256(told.encode()).hexdigest()[:24]
        result = payload(view, titles) | {
            "version": VERSION,
            "id": name,
            "settings": settings,
            "stamps": stamps,
            "made": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        arrays = BytesIO()
        np.savez_compressed(
            arrays,
            indices=view.indices,
            labels=view.labels,
            predictions=np.stack([model.predictions for model in view.models]),
        )
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with replacing(self.folder / f"{name}.npz") as part:
                part.write_bytes(arrays.getvalue())
            with replacing(self.folder / f"{name}.json") as part:
                part.write_bytes(json.dumps(result).encode())
            old = sorted(self.folder.glob("*.json"), key=lambda path: -path.stat().st_mtime)
            for path in old[MOST_KEPT:]:
                path.unlink(missing_ok=True)
                path.with_suffix(".npz").unlink(missing_ok=True)
        except OSError:
            pass
        return result

    def newest(self, dataset: str, protocol: str, stamps_of: Callable[[Json], Json]) -> Json | None:
        """Find the last result that still holds; a quick look only where there is no other.

        Args: stamps_of: gives the stamps that a result with these settings would have now
        """
        best: tuple[tuple[bool, str], Json] | None = None
        for path in self.folder.glob("*.json"):
            found = _read(path)
            if found is None or (found.get("dataset"), found.get("protocol")) != (
                dataset,
                protocol,
            ):
                continue
            if found["stamps"] != stamps_of(found["settings"]):
                continue
            rank = (not found["settings"]["quick"], found["made"])
            if best is None or rank > best[0]:
                best = (rank, found)
        return best[1] if best else None

    def answers(self, name: str) -> KeptAnswers | None:
        """Give the answers of a result; None if it is no longer there."""
        # Out of a listing, so that no request becomes a path.
        path = next((p for p in self.folder.glob("*.npz") if p.stem == name), None)
        if path is None:
            return None
        try:
            with np.load(path, allow_pickle=False) as found:
                return KeptAnswers(found["indices"], found["labels"], found["predictions"])
        except (OSError, ValueError, KeyError):
            return None


def payload(view: EvaluationView, titles: Sequence[str]) -> Json:
    """Give what the page shows: all figures, and which answers change into which.

    Args: titles: of the networks, in the order of the models that are no averages
    """
    entry = find_dataset(view.dataset)
    found = as_json(view)
    cards = [model.card for model in view.models if model.rotations == 1]
    kinds = [kind_of(card.model, card.arm) for card in cards]
    shorts = _with_averages(view.models, tell_apart(cards, kinds))
    titles = _with_averages(view.models, titles)
    models = zip(found.pop("models"), titles, shorts, view.models, strict=True)  # type: ignore[call-overload]
    return found | {
        "title": entry.title,
        "classes": list(entry.classes),
        "is_multi_label": entry.is_multi_label,
        "angles_deg": [angle.angle_deg for angle in view.models[0].angles],
        "models": [
            told
            | {"title": title, "short": short, "arm": model.card.arm}
            | {"changes": changes(model, len(entry.classes))}
            for told, title, short, model in models
        ],
        "csv": "\n".join(",".join(map(str, row)) for row in as_rows(view)) + "\n",
    }


def _with_averages(models: Sequence[ModelFigures], names: Sequence[str]) -> list[str]:
    """Name averages after their networks, whose names these are."""
    called, found = iter(names), list[str]()
    for model in models:
        average = f"{found[-1]}, mean of {model.rotations} rotations" if model.rotations > 1 else ""
        found.append(average or next(called))  # an average comes after the network that it asks
    return found


def changes(model: ModelFigures, classes: int) -> list[list[list[int]]]:
    """List, for each angle, [answer at the first angle, answer there, images], most first."""
    if model.predictions.ndim != 2:
        return []
    told, upright = [], model.predictions[0].astype(np.int64)
    for at in model.predictions:
        counts = np.bincount(upright * classes + at, minlength=classes**2)
        counts[:: classes + 1] = 0
        most = [k for k in np.argsort(-counts, kind="stable")[:MOST_CHANGES] if counts[k]]
        told.append([[int(k) // classes, int(k) % classes, int(counts[k])] for k in most])
    return told


def stamps_of_files(paths: Sequence[Path]) -> Json:
    """Tell files apart from what they were before: time of last change and size."""
    found = {}
    for path in paths:
        name = f"{path.parent.name}/{path.name}"  # no other folders: a page shows it
        try:
            found[name] = [path.stat().st_mtime_ns, path.stat().st_size]
        except OSError:
            found[name] = []
    return found


def _read(path: Path) -> Json | None:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    # One of another version is made anew from the answers, which are kept apart.
    is_ours = isinstance(found, dict) and found.get("version") == VERSION
    return found if is_ours else None
