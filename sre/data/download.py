"""Bringing a MedMNIST file to the data folder: once, whole, checked, or not at all.

The bytes arrive in ``NAME.npz.part`` and get their name when their md5 is the official one. After
a fault the ``.part`` stays only where the next try can go on from it; an empty
``.NAME.npz.lock`` stays too, since removing a lock that others may be opening breaks it.
"""

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Condition, Lock

from filelock import FileLock, Timeout

from sre.data.store import status
from sre.data.table import DatasetEntry
from sre.data.transfer import Progress, Transfer, folder_fault, megabytes
from sre.errors import DataError, Dropped

_LOOK_EVERY_S = 0.1


class _Flight:
    """One running download, which several callers may be waiting for."""

    def __init__(self, entry: DatasetEntry, size: int, path: Path):
        self.entry, self.size, self.path = entry, size, path
        self.changed = Condition()
        self.progress = Progress(0, None, "waiting", "waiting for the server")
        self.stops: list[Callable[[], bool]] = []
        self.is_over = False
        self.error: DataError | Dropped | None = None

    def lead(self, transfer: Transfer, on_progress: Callable[[Progress], None]) -> None:
        def report(progress: Progress) -> None:
            with self.changed:
                self.progress = progress
                self.changed.notify_all()
            on_progress(progress)

        try:
            with _locked(self.path, report, self.is_unwanted):
                self._bring(transfer, report)
        except (DataError, Dropped) as error:
            self.error = error
            raise

    def finish(self) -> None:
        with self.changed:
            self.is_over = True
            self.changed.notify_all()

    def follow(
        self, on_progress: Callable[[Progress], None], should_stop: Callable[[], bool]
    ) -> None:
        """Pass the progress on until the download is over; raise what it raised."""
        seen = None
        while True:
            with self.changed:
                if self.progress is seen and not self.is_over:
                    self.changed.wait(_LOOK_EVERY_S)
                progress, is_over = self.progress, self.is_over
            if progress is not seen:
                on_progress(progress)
                seen = progress
            if is_over:
                break
            if should_stop():
                raise self.dropped()
        if self.error is not None:
            raise type(self.error)(str(self.error)) from self.error
        if not self.path.exists():
            raise DataError(f"{self.path.name} was not downloaded: it broke off; try again")

    def is_unwanted(self) -> bool:
        with _FLIGHTS_LOCK:
            stops = list(self.stops)
        return all(stop() for stop in stops)

    def dropped(self) -> Dropped:
        return Dropped(f"the download of {self.path.name} was stopped, as nobody waits for it here")

    def _bring(self, transfer: Transfer, report: Callable[[Progress], None]) -> None:
        path, part = self.path, transfer.part
        found = status(self.entry, data_dir=path.parent, size=self.size)
        if found == "other":
            raise DataError(
                f"{path} is there, with other bytes than the official ones; move it away or "
                "delete it, and download again"
            )
        if found == "missing":
            is_whole = self._fetch(transfer, report)
            if not is_whole and transfer.is_pieced:
                # The pieces may be of two versions of the file: once more, in one go.
                is_whole = self._fetch(transfer, report)
            if not is_whole:
                raise DataError(
                    f"{path.name} was not downloaded: the bytes from {transfer.host} are not the "
                    "official ones; check that the network lets them through, and try again"
                )
            try:
                os.replace(part, path)
            except OSError as error:
                raise folder_fault(path.parent, path.name, error) from error
        length = path.stat().st_size
        report(Progress(length, length, "done", megabytes(length)))

    def _fetch(self, transfer: Transfer, report: Callable[[Progress], None]) -> bool:
        """Fill the ``.part``; False, and no ``.part``, if its bytes are not the official ones."""
        transfer.run(report, self.is_unwanted)
        report(Progress(transfer.done, transfer.total, "checking", "checking the md5"))
        with transfer.part.open("rb") as file:
            md5 = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        if md5 == self.entry.archive(self.size).md5:
            return True
        transfer.discard()
        return False


# Callers of one file must find each other, which takes something that they share.
_FLIGHTS: dict[Path, _Flight] = {}
_FLIGHTS_LOCK = Lock()


def download(
    entry: DatasetEntry,
    size: int,
    data_dir: Path,
    *,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    should_stop: Callable[[], bool] = lambda: False,
    url: str | None = None,
    pauses_s: tuple[float, ...] = (1, 2, 4),
    timeout_s: float = 30,
) -> Path:
    """Download a set's official file, or join whoever is at it, and give its path.

    It goes on until every caller who waits for it wants to stop. A file that is there already
    is not touched.

    Args:
        url: another place than the official one; the bytes must be the official ones all the same
        pauses_s: before each further try
        timeout_s: of silence, after which the server counts as gone
    Raises: SettingError: the set is built in, or does not come in that size
        DataError: it failed; which file, why, and the cure
        Dropped: should_stop said so
    """
    archive, path = entry.archive(size), _place(entry, size, data_dir)
    while True:
        with _FLIGHTS_LOCK:
            leads = path not in _FLIGHTS
            flight = _FLIGHTS.setdefault(path, _Flight(entry, size, path))
            flight.stops.append(should_stop)
        if leads:
            transfer = Transfer(
                url or archive.url,
                path.with_name(f"{path.name}.part"),
                name=path.name,
                # Compressing hardly ever makes images larger; labels and headers come on top.
                most=entry.bytes_at_most(size) * 3 // 2 + 1_000_000,
                pauses_s=pauses_s,
                timeout_s=timeout_s,
            )
            try:
                flight.lead(transfer, on_progress)
            finally:
                with _FLIGHTS_LOCK:
                    del _FLIGHTS[path]
                flight.finish()
            return path
        try:
            flight.follow(on_progress, should_stop)
        except Dropped:
            if should_stop():
                raise
            continue  # the others gave up just as this caller came
        return path


def current_progress(entry: DatasetEntry, size: int, data_dir: Path) -> Progress | None:
    """Tell how far the download of a file is; None: this process is not downloading it."""
    with _FLIGHTS_LOCK:
        flight = _FLIGHTS.get(_place(entry, size, data_dir))
    return None if flight is None else flight.progress


def _place(entry: DatasetEntry, size: int, data_dir: Path) -> Path:
    return Path(os.path.abspath(data_dir)) / entry.file_name(size)


@contextmanager
def _locked(
    path: Path, report: Callable[[Progress], None], is_unwanted: Callable[[], bool]
) -> Iterator[None]:
    """Keep other processes off the file; while one of them is at it, wait."""
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            try:
                lock.acquire(timeout=0)
                break
            except Timeout:
                if is_unwanted():
                    raise Dropped(f"the download of {path.name} was stopped") from None
                report(Progress(0, None, "waiting", "another program is downloading it"))
                time.sleep(_LOOK_EVERY_S)
    except OSError as error:
        raise folder_fault(path.parent, path.name, error) from error
    try:
        yield
    finally:
        lock.release()
