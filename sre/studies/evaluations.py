"""Everything that the Evaluate page asks for, as JSON-able answers; one evaluation at a time."""

import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sre.data.store import load_split, status
from sre.data.table import DATASETS, DatasetEntry, find_dataset
from sre.errors import DataError, SettingError, SREError
from sre.protocols import PROTOCOLS, find_protocol
from sre.studies.answering import Measured
from sre.studies.bundle import picture_sheet
from sre.studies.evaluate_run import EvaluationView, run_evaluation
from sre.studies.evaluation_store import EvaluationStore, stamps_of_files
from sre.studies.shelf import ARMS, Network, list_shelf, networks_of, titles, usual

PREFERRED = ("bloodmnist", "pneumoniamnist", "retinamnist", "breastmnist", "cells")
STEPS_DEG = (10, 30)
AVERAGED_ROTATIONS = 8
QUICK_IMAGES, QUICK_STEP_DEG, QUICK_RESAMPLES, RESAMPLES = 200, 30, 300, 1000
MOST_NETWORKS, MOST_LISTED = 8, 24
Json = dict[str, Any]


@dataclass(slots=True)
class _Running:
    """The evaluation under way, or the last one."""

    id: str
    settings: Json
    began: float
    state: str = "running"  # then done, stopped or failed
    name: str = ""
    done: int = 0
    total: int = 0
    message: str = ""
    stop: threading.Event = field(default_factory=threading.Event)


@dataclass(slots=True)
class Evaluations:
    """Evaluations over one data folder and one folder of checkpoints; safe from many threads.

    What comes from a browser may be anything, hence ``object``; what is wrong with it is said by
    an SREError. ``wait`` is called now and then, and may hold an evaluation up for what is urgent.
    """

    data_dir: Path
    cache_dir: Path
    checkpoints_dir: Path
    device: str = "cpu"
    wait: Callable[[], None] = lambda: None
    _store: EvaluationStore = field(init=False)
    _last: _Running | None = None
    _fresh: Json | None = None  # the last result, for where the disk takes none
    _state: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._store = EvaluationStore(self.cache_dir / "evaluations")

    def catalogue(self) -> Json:
        """The 2-D data sets with their networks, what can be chosen, and what to begin with."""
        shelf = list_shelf(self.checkpoints_dir, self.cache_dir)
        rows = [self._row(e, shelf) for e in DATASETS.values() if e.dimensions == 2]
        ready = [row["name"] for row in rows if row["is_ready"]]
        first = [name for name in (*PREFERRED, *ready) if name in ready]
        return {
            "datasets": rows,
            "protocols": [
                {"name": p.name, "description": p.description} for p in PROTOCOLS.values()
            ],
            "steps_deg": list(STEPS_DEG),
            "most_networks": MOST_NETWORKS,
            "start": {"dataset": first[0] if first else "cells", "protocol": "disc"},
        }

    def result(self, dataset: object, protocol: object) -> Json:
        """The newest result that still holds, under "result"; None if there is none."""
        entry, chosen = _entry(dataset), find_protocol(_text(protocol, "protocol"))
        found, fresh = self._store.newest(entry.name, chosen.name, self._stamps), self._fresh
        if found is None and fresh is not None and fresh["dataset"] == entry.name:
            found = fresh if fresh["protocol"] == chosen.name else None
        return {"result": found}

    def start(
        self,
        dataset: object,
        checkpoints: object,
        protocol: object,
        step_deg: object,
        average: object,
        placings: object,
    ) -> Json:
        """Begin an evaluation; see ``progress``.

        Args: checkpoints: names of files in the checkpoints folder; average: whether each
            network's mean over eight rotations takes part; placings: scaled and shifted images
        Raises: SettingError: one is running already, or a value is none of the allowed
        """
        entry, chosen = _entry(dataset), find_protocol(_text(protocol, "protocol"))
        names = self._chosen(entry, checkpoints)
        if step_deg not in STEPS_DEG or isinstance(step_deg, bool):
            raise SettingError(f"step_deg must be {' or '.join(map(str, STEPS_DEG))}; try 10")
        if not isinstance(average, bool) or not isinstance(placings, bool):
            raise SettingError("average and placings must be true or false; reload the page")
        return self._begin(
            {
                "dataset": entry.name, "checkpoints": names, "protocol": chosen.name,
                "step_deg": step_deg, "average": average, "placings": placings, "quick": False,
            }
        )  # fmt: skip

    def look(self, dataset: object, protocol: object) -> Json:
        """Begin a quick evaluation of a part of the images, so that no page opens empty."""
        entry, chosen = _entry(dataset), find_protocol(_text(protocol, "protocol"))
        names = [network.name for network in usual(self._networks(entry))]
        return self._begin(
            {
                "dataset": entry.name, "checkpoints": names, "protocol": chosen.name,
                "step_deg": QUICK_STEP_DEG, "average": False, "placings": False, "quick": True,
            }
        )  # fmt: skip

    def progress(self) -> Json:
        """How far the evaluation is: idle, running, done, stopped or failed (with a message)."""
        with self._state:
            now = self._last
            if now is None:
                return {"state": "idle"}
            return {
                "id": now.id,
                "state": now.state,
                "settings": now.settings,
                "name": now.name,
                "done": now.done,
                "total": now.total,
                "left_s": _left_s(now),
                "message": now.message,
            }

    def stop(self, name: object) -> Json:
        """Stop the evaluation of that id; what it was answered is kept."""
        wanted = _text(name, "id")
        with self._state:
            if self._last is not None and self._last.id == wanted:
                self._last.stop.set()
        return self.progress()

    def cell(
        self,
        result: object,
        model: object,
        angle: object,
        kind: object,
        row: object,
        column: object,
        since: object = 0,
    ) -> Json:
        """Some images of a cell.

        Args: result: an id; model, angle: their places; kind: "confusion", of class ``row`` and
            answered ``column`` at the angle, or "change", answered ``row`` at the first angle and
            ``column`` there; since: how many of them are known already
        Raises: SettingError: there is no such cell, or the result is gone
        """
        kept = self._store.answers(_text(result, "result"))
        if kept is None:
            raise SettingError("that result is no longer kept; press Start to make it anew")
        if kind not in ("confusion", "change"):
            raise SettingError(f"kind must be confusion or change, got {str(kind)[:40]!r}")
        if kept.predictions.ndim != 3:
            raise SettingError("this data set has labels instead of classes; choose another")
        networks, angles, _ = kept.predictions.shape
        of = kept.predictions[_place(model, "model", networks)]
        given = kept.labels if kind == "confusion" else of[0]
        inside = (given == _place(row, "row", 1000)) & (
            of[_place(angle, "angle", angles)] == _place(column, "column", 1000)
        )
        total, first = int(inside.sum()), _place(since, "since", len(inside) + 1)
        return {
            "indices": kept.indices[inside].tolist()[first : first + MOST_LISTED], "total": total
        }  # fmt: skip

    def pictures(self, dataset: object, indices: object) -> Json:
        """A sheet of test images."""
        entry = _entry(dataset)
        data = load_split(entry.name, "test", data_dir=self.data_dir)
        if not isinstance(indices, list) or not 1 <= len(indices) <= MOST_LISTED:
            raise SettingError(f"indices must be a list of 1 to {MOST_LISTED}; reload the page")
        some = [_place(index, "sample", len(data)) for index in indices]
        return {"sheet": picture_sheet(data.images[some]), "labels": data.labels[some].tolist()}

    def _row(self, entry: DatasetEntry, shelf: Sequence[Network]) -> Json:
        try:
            found = status(entry, data_dir=self.data_dir)
        except DataError:
            found = "missing"
        ours = networks_of(shelf, entry)
        called = titles(ours)
        networks = [
            {
                "file": network.name,
                "title": called[network.name],
                "arm": network.card.arm,
                "parameters": network.card.parameters,
                "multiply_adds": network.card.multiply_adds,
            }
            for network in _in_order(ours)
        ]
        return {
            "name": entry.name,
            "title": entry.title,
            "images": entry.splits["test"],
            "status": found,
            "networks": networks,
            "is_ready": found != "missing" and bool(networks),
        }

    def _networks(self, entry: DatasetEntry) -> dict[str, Network]:
        found = networks_of(list_shelf(self.checkpoints_dir, self.cache_dir), entry)
        return {network.name: network for network in _in_order(found)}

    def _chosen(self, entry: DatasetEntry, names: object) -> list[str]:
        there = list(self._networks(entry))
        if not isinstance(names, list) or not 1 <= len(names) <= MOST_NETWORKS:
            raise SettingError(f"an evaluation takes 1 to {MOST_NETWORKS} networks; tick as many")
        for name in names:
            if name not in there:
                raise SettingError(
                    f"{str(name)[:80]!r} is no network of {entry.title}; choose from the list"
                )
        return [name for name in there if name in names]

    def _stamps(self, settings: Json) -> Json:
        entry = _entry(settings["dataset"])
        files = [] if entry.source == "built-in" else [self.data_dir / entry.file_name(28)]
        there = _taking_part(self._networks(entry), settings)
        return stamps_of_files([*(network.path for network in there), *files])

    def _begin(self, settings: Json) -> Json:
        with self._state:
            if self._last is not None and self._last.state == "running":
                title = _entry(self._last.settings["dataset"]).title
                raise SettingError(
                    f"an evaluation of {title} is running; wait for its end, or stop it"
                )
            running = _Running(secrets.token_hex(8), settings, time.monotonic())
            self._last = running
        threading.Thread(target=self._run, args=(running,), name="evaluation", daemon=True).start()
        return self.progress()

    def _run(self, running: _Running) -> None:
        state, message = "failed", "the program failed here; its output says how"
        try:
            state, message = self._follow(running), ""
        except SREError as error:
            message = str(error)
        finally:
            with self._state:
                running.state, running.message = state, message

    def _follow(self, running: _Running) -> str:
        settings = running.settings
        stamps, step = self._stamps(settings), settings["step_deg"]
        known = self._networks(_entry(settings["dataset"]))
        there = _taking_part(known, settings)
        if len(there) < len(settings["checkpoints"]):
            raise SettingError("a network has been removed meanwhile; reload the page and choose")
        told = titles(known)
        paths, called = [n.path for n in there], [told[n.name] for n in there]
        events = run_evaluation(
            settings["dataset"],
            paths,
            data_dir=self.data_dir,
            protocol=settings["protocol"],
            angles_deg=[float(angle) for angle in range(0, 360, step)],
            resamples=QUICK_RESAMPLES if settings["quick"] else RESAMPLES,
            average_rotations=AVERAGED_ROTATIONS if settings["average"] else 1,
            with_placings=settings["placings"],
            most_images=QUICK_IMAGES if settings["quick"] else None,
            device=self.device,
            keep_dir=self.cache_dir / "answers",
        )
        for event in events:
            if running.stop.is_set():
                events.close()  # type: ignore[attr-defined]
                return "stopped"
            if isinstance(event, EvaluationView):
                self._fresh = self._store.save(event, settings, stamps, called)
            elif isinstance(event, Measured):
                self.wait()
                with self._state:
                    if not running.done:
                        running.began = time.monotonic()
                    running.name, running.done = event.name, event.done
                    running.total = event.total
        return "done"


def _in_order(networks: Mapping[str, Network]) -> list[Network]:
    """The Lab's arms first, in their order, the narrowest of each first."""
    places = {arm: place for place, arm in enumerate(ARMS)}
    return sorted(
        networks.values(), key=lambda n: (places.get(n.card.arm, len(ARMS)), n.card.width)
    )


def _taking_part(known: Mapping[str, Network], settings: Json) -> list[Network]:
    return [network for name, network in known.items() if name in settings["checkpoints"]]


def _left_s(now: _Running) -> float | None:
    if now.state != "running" or not now.done or not now.total:
        return None
    return (time.monotonic() - now.began) * (now.total - now.done) / now.done


def _entry(name: object) -> DatasetEntry:
    entry = find_dataset(_text(name, "dataset"))
    if entry.dimensions != 2:
        raise SettingError(f"{entry.title} holds volumes; choose a 2-D data set")
    return entry


def _text(value: object, name: str) -> str:
    if not isinstance(value, str) or len(value) > 200:
        raise SettingError(f"{name} must be a short text, got {str(value)[:40]!r}")
    return value


def _place(value: object, name: str, count: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < count:
        raise SettingError(
            f"{name} must be a whole number from 0 to {count - 1}, got {str(value)[:40]!r}"
        )
    return value
