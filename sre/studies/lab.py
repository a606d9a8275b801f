"""Everything that the Lab's page asks for, as JSON-able answers; the one place that keeps state."""

import hashlib
import json
import secrets
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sre.data.download import current_progress, download
from sre.data.store import status
from sre.data.table import DATASETS, DatasetEntry, find_dataset
from sre.errors import CheckpointError, DataError, Dropped, ImageError, SettingError, SREError
from sre.protocols import find_protocol
from sre.studies.bundle import VERSION, pack_orbit, picture_sheet
from sre.studies.cache import TextCache
from sre.studies.naming import SIZE_PX
from sre.studies.orbit import study_orbit
from sre.studies.samples import (
    KINDS,
    FoundView,
    check_index,
    find_images,
    find_sample,
    list_gallery,
    load_test,
)
from sre.studies.shelf import Network, choose, list_shelf, networks_of, titles, usual
from sre.studies.uploads import read_picture

PREFERRED = ("bloodmnist", "pneumoniamnist", "retinamnist", "breastmnist")
MOST_UPLOADS, MOST_SESSIONS = 256, 4096
LONGEST_TEXT, LARGEST_WHOLE = 200, 2**53  # beyond this a browser's numbers are not whole

Json = dict[str, Any]


@dataclass(slots=True)
class Lab:
    """The Lab over one data folder, one folder of checkpoints, and those trained on the page.

    Safe from many threads: networks run one request at a time, equal requests share an answer.
    What comes from a browser may be anything, hence ``object``; what is wrong with it is said by
    an SREError.
    """

    data_dir: Path
    cache_dir: Path
    checkpoints_dir: Path
    device: str = "cpu"
    _cache: TextCache = field(init=False)
    _uploads: "OrderedDict[str, tuple[np.ndarray, str]]" = field(default_factory=OrderedDict)
    _tickets: "OrderedDict[str, int]" = field(default_factory=OrderedDict)
    _opening: tuple[str, Json] | None = None  # data set, and what to begin with in it
    _faults: dict[str, str] = field(default_factory=dict)  # of downloads, by data set
    _fetching: set[str] = field(default_factory=set)  # data sets
    _state: threading.Lock = field(default_factory=threading.Lock)
    _running: threading.Lock = field(default_factory=threading.Lock)
    # One picture at a time: 50 million pixels take half a gigabyte.
    _decoding: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._cache = TextCache(self.cache_dir / "orbits")

    def wait_until_idle(self) -> None:
        """Return once no visitor waits for an orbit, for work that can wait."""
        with self._running:
            pass

    def catalogue(self) -> Json:
        """All data sets, what is there of them, and the sample to begin with."""
        shelf = list_shelf(self.checkpoints_dir, self.cache_dir)
        rows = [self._row(entry, networks_of(shelf, entry)) for entry in DATASETS.values()]
        shown = {r["name"] for r in rows if r["status"] != "missing" and r["checkpoints"]}
        first = [
            n for n in (*PREFERRED, *sorted(shown - {"cells", "digits"}), "cells") if n in shown
        ]
        start = {"dataset": first[0] if first else "cells", "sample": 0, "note": ""}
        if self._opening is not None and self._opening[0] == start["dataset"]:
            found = self._opening[1]
            note = f"This image was chosen to begin with. {found['note']}"
            start |= {"sample": found["index"], "note": note}
        return {"datasets": rows, "start": start}

    def choose_opening(self) -> None:
        """Begin, from now on, with the first sample at which turning makes a difference.

        Raises: SREError: there is none, or no network to tell; the sample to begin with stays
        """
        name = self.catalogue()["start"]["dataset"]
        self._opening = name, self.find(name, "cnn_wrong_turned", None, "disc")

    def gallery(self, dataset: object, label: object, offset: object, limit: object) -> Json:
        """Some test images of one class or of all, with a sheet of their pictures."""
        view = list_gallery(
            _text(dataset, "dataset"),
            label=None if label is None else _whole(label, "label"),
            offset=_whole(offset, "offset"),
            limit=_whole(limit, "limit"),
            data_dir=self.data_dir,
        )
        items = [
            {"index": int(i), "label": found.tolist()}
            for i, found in zip(view.indices, view.labels, strict=True)
        ]
        sheet = picture_sheet(view.images) if len(view.images) else None
        return {"total": view.total, "items": items, "sheet": sheet}

    def find(
        self,
        dataset: object,
        kind: object,
        after: object,
        protocol: object,
        networks: object = None,
    ) -> Json:
        """A test image of a kind: random, cnn_wrong_turned or sre_wrong."""
        entry, kind = find_images(_text(dataset, "dataset")), _text(kind, "kind")
        after = None if after is None else _whole(after, "after")
        protocol = find_protocol(_text(protocol, "protocol")).name

        def look(found: Sequence[Network]) -> FoundView:
            return find_sample(
                entry.name,
                kind,
                after=after,
                protocol=protocol,
                checkpoints=[network.path for network in found],
                data_dir=self.data_dir,
            )

        if kind == KINDS[0]:
            view = look([])
        else:
            with self._running:
                # Those on show first; where they have no such arm, the usual ones.
                view = look([*self._networks(entry, networks), *self._networks(entry)])
        return {"index": view.index, "note": view.note}

    def upload(self, data: bytes, name: object, dataset: object) -> Json:
        """Take a picture of the visitor's own; it is kept in memory, under a token, for a while."""
        entry = find_images(_text(dataset, "dataset"))
        with self._decoding:
            picture = read_picture(data, channels=entry.channels, side_px=SIZE_PX)
        token = secrets.token_hex(16)
        with self._state:
            self._uploads[token] = (picture, entry.name)
            while len(self._uploads) > MOST_UPLOADS:
                self._uploads.popitem(last=False)
        shown = "".join(c for c in str(name) if c.isprintable())[:80]
        note = f"Cropped to its central square and brought to {SIZE_PX} px."
        return {"token": token, "name": shown, "note": note}

    def orbit(
        self,
        dataset: object,
        sample: object,
        upload: object,
        protocol: object,
        target: object,
        ticket: object,
        session: object,
        networks: object = None,
    ) -> Json:
        """The bundle of one sample; dropped if the session has asked for another meanwhile.

        Args: sample: a number; upload: a token instead, or None; target: a class, or None;
            ticket: counts a session's requests; session: empty for callers that ask once;
            networks: names out of the catalogue, one a column; None: the usual ones
        Raises: SREError: what was wrong with the request; Dropped: as above
        """
        packed = self.packed_orbit(
            dataset, sample, upload, protocol, target, ticket, session, networks
        )
        bundle = json.loads(packed["bundle"])
        target = bundle["target"] | {"chosen": packed["is_target_chosen"]}
        told = {"sample": packed["sample"], "target": target, "networks": packed["networks"]}
        return bundle | told

    def packed_orbit(
        self,
        dataset: object,
        sample: object,
        upload: object,
        protocol: object,
        target: object,
        ticket: object,
        session: object,
        networks: object = None,
    ) -> Json:
        """The same with the bundle as text, as it is kept: to take it apart would cost 20 ms.

        One picture may be several samples', so what names this one stands beside it.
        """
        entry = find_images(_text(dataset, "dataset"))
        name = find_protocol(_text(protocol, "protocol")).name
        target = None if target is None else _whole(target, "target")
        session, ticket = _text(session, "session"), _whole(ticket, "ticket")
        image, label, described = self._sample(entry, sample, upload)
        chosen, of_set = self._networks(entry, networks), self._described(entry)
        paths = [network.path for network in chosen]
        if not paths:
            raise SettingError(
                f"{entry.title} has no checkpoint yet; train one with: python -m sre train "
                f"{entry.name} sre_resnet18"
            )
        self._note_ticket(session, ticket)
        key = _key(image, paths, [label, name, target, of_set])

        def compute(is_wanted: Any) -> str:
            with self._running:
                if not is_wanted():
                    raise Dropped("the visitor has moved on; ask again if you still want it")
                view = study_orbit(
                    image,
                    checkpoints=paths,
                    protocol=name,
                    label=label,
                    target=target,
                    device=self.device,
                    is_wanted=is_wanted,
                )
            return pack_orbit(view, key=key, dataset=of_set, sample={})

        text = self._cache.fetch(key, compute, is_wanted=lambda: self._is_newest(session, ticket))
        return {
            "bundle": text,
            "sample": described,
            "is_target_chosen": target is not None,
            "networks": [network.name for network in chosen],
        }

    def download(self, dataset: object) -> Json:
        """Begin to fetch a data set, or join whoever does; see download_progress."""
        entry = find_dataset(_text(dataset, "dataset"))
        entry.archive(SIZE_PX)  # refuses what is built in
        with self._state:
            is_first = entry.name not in self._fetching
            self._fetching.add(entry.name)
            self._faults.pop(entry.name, None)
        if is_first:
            threading.Thread(target=self._download, args=(entry,), daemon=True).start()
        return {"done": 0, "total": None, "state": "running", "message": "waiting for the server"}

    def download_progress(self, dataset: object) -> Json:
        """How far a download is: running, done, error (with its sentence) or idle."""
        entry = find_dataset(_text(dataset, "dataset"))
        with self._state:
            fault, is_fetching = self._faults.get(entry.name), entry.name in self._fetching
        if fault is not None:
            return {"done": 0, "total": None, "state": "error", "message": fault}
        if entry.source == "built-in":
            return {"done": 0, "total": 0, "state": "done", "message": "built in"}
        progress = current_progress(entry, SIZE_PX, self.data_dir)
        if progress is not None and progress.state != "done":
            return {
                "done": progress.done,
                "total": progress.total,
                "state": "running",
                "message": progress.message,
            }
        is_there = status(entry, data_dir=self.data_dir) != "missing"
        state = "running" if is_fetching else "done" if is_there else "idle"
        return {"done": 0, "total": None, "state": state, "message": ""}

    def _download(self, entry: DatasetEntry) -> None:
        try:
            download(entry, SIZE_PX, self.data_dir)
        except SREError as error:
            with self._state:
                self._faults[entry.name] = str(error)
        finally:
            with self._state:
                self._fetching.discard(entry.name)

    def _row(self, entry: DatasetEntry, networks: dict[str, Network]) -> Json:
        found, note = "missing", ""
        try:
            found = status(entry, data_dir=self.data_dir)
        except DataError as error:
            note = str(error)
        called = titles(networks)
        archive = entry.archives.get(SIZE_PX)
        known = archive.bytes if archive else 0
        return {
            "name": entry.name,
            "title": entry.title,
            "task": entry.task,
            "classes": list(entry.classes),
            "channels": entry.channels,
            "dimensions": entry.dimensions,
            "status": found,
            "counts": dict(entry.splits),
            "download_bytes": entry.bytes_at_most(SIZE_PX) if known is None else known,
            "download_is_bound": known is None,
            "licence": entry.licence,
            "citation": entry.citation,
            "description": entry.description,
            "checkpoints": len(networks),
            "networks": [
                {"name": name, "title": called[name], "arm": network.card.arm}
                for name, network in networks.items()
            ],
            "usual": [network.name for network in usual(networks)],
            "note": note,
        }

    def _described(self, entry: DatasetEntry) -> Json:
        found = status(entry, data_dir=self.data_dir)
        notes = {
            "official": "MedMNIST's official file.",
            "other": "Not the official file: figures are near, not equal, to published ones.",
            "built-in": entry.description,
        }
        return {
            "name": entry.name,
            "title": entry.title,
            "task": entry.task,
            "classes": list(entry.classes),
            "channels": entry.channels,
            "licence": entry.licence,
            "provenance": found,
            "note": notes.get(found, ""),
        }

    def _networks(self, entry: DatasetEntry, names: object = None) -> list[Network]:
        """The networks that the page compares, one a column."""
        shelf = list_shelf(self.checkpoints_dir, self.cache_dir)
        return choose(networks_of(shelf, entry), names)

    def _sample(
        self, entry: DatasetEntry, sample: object, upload: object
    ) -> tuple[np.ndarray, int | tuple[int, ...] | None, Json]:
        if upload is not None:
            with self._state:
                picture, made_for = self._uploads.get(_text(upload, "upload"), (None, ""))
            if picture is None or made_for != entry.name:
                raise ImageError("that picture is no longer here; choose the file again")
            described: Json = {"source": "upload", "split": None, "index": None, "label": None}
            return picture, None, described | {"name": "your own picture, not from this data set"}
        split = load_test(entry.name, data_dir=self.data_dir)
        index = check_index(split, _whole(sample, "sample"))
        label = split.labels[index].tolist()
        described = {"source": "dataset", "split": "test", "index": index, "label": label}
        label = tuple(label) if isinstance(label, list) else label
        return split.images[index], label, described | {"name": f"test image {index}"}

    def _note_ticket(self, session: str, ticket: int) -> None:
        if not session:
            return
        with self._state:
            self._tickets[session] = max(ticket, self._tickets.get(session, ticket))
            self._tickets.move_to_end(session)
            while len(self._tickets) > MOST_SESSIONS:
                self._tickets.popitem(last=False)

    def _is_newest(self, session: str, ticket: int) -> bool:
        with self._state:
            return ticket >= self._tickets.get(session, ticket)


def _key(image: np.ndarray, networks: Sequence[Path], settings: Sequence[object]) -> str:
    """Name an answer by all that it hangs on.

    Raises: CheckpointError: a file has gone since it was listed
    """
    try:
        stamps = [(path.name, path.stat().st_mtime_ns, path.stat().st_size) for path in networks]
    except OSError as error:
        raise CheckpointError("a checkpoint has just been removed; ask again") from error
    rest = json.dumps([VERSION, image.shape, stamps, *settings])
    return hashlib.sha256(image.tobytes() + rest.encode()).hexdigest()[:32]


def _whole(value: object, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise SettingError(f"{name} must be a whole number, got {str(value)[:40]!r}")
    if abs(value) > LARGEST_WHOLE:
        raise SettingError(f"{name} must be a whole number of at most 2**53, got a larger one")
    return value


def _text(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise SettingError(f"{name} must be a text, got {str(value)[:40]!r}")
    if len(value) > LONGEST_TEXT:
        raise SettingError(
            f"{name} must be a text of at most {LONGEST_TEXT} characters, got {len(value)}"
        )
    return value
