"""Keep answers that are dear to compute: in memory, on disk, and never computed twice at once."""

import contextlib
import os
import zlib
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

from sre.errors import Dropped
from sre.whole import make_room, replacing

MEMORY_BYTES = 64 << 20
DISK_BYTES = 512 << 20


@dataclass(slots=True)
class _Flight:
    future: Future = field(default_factory=Future)
    wanted: list[Callable[[], bool]] = field(default_factory=list)

    def is_wanted(self) -> bool:
        return any(wanted() for wanted in list(self.wanted))


class TextCache:
    """Texts by key: the least recently used leave first, from memory and from the folder.

    A folder that cannot be written to costs speed, not answers: then memory is all there is.
    """

    def __init__(
        self, folder: Path, *, memory_bytes: int = MEMORY_BYTES, disk_bytes: int = DISK_BYTES
    ):
        self.folder, self.memory_bytes, self.disk_bytes = folder, memory_bytes, disk_bytes
        self._memory: OrderedDict[str, str] = OrderedDict()
        self._held_bytes = 0
        self._flights: dict[str, _Flight] = {}
        self._lock = Lock()

    def fetch(
        self,
        key: str,
        compute: Callable[[Callable[[], bool]], str],
        *,
        is_wanted: Callable[[], bool] = lambda: True,
    ) -> str:
        """Give the text of a key, computing it if need be; callers of one key compute it once.

        ``compute`` gets a function that tells whether anybody still waits.

        Args: key: letters and digits only, as it names a file
        Raises: Dropped: nobody waited any more; and whatever ``compute`` raises
        """
        while True:
            with self._lock:
                if key in self._memory:
                    self._memory.move_to_end(key)
                    return self._memory[key]
                leads = key not in self._flights
                flight = self._flights.setdefault(key, _Flight())
                flight.wanted.append(is_wanted)
            if leads:
                return self._lead(key, flight, compute)
            try:
                return flight.future.result()
            except Dropped:
                if not is_wanted():
                    raise
                # The others gave up just as this caller came: start afresh.

    def _lead(self, key: str, flight: _Flight, compute: Callable[[Callable[[], bool]], str]) -> str:
        try:
            text = self._read(key)
            if text is None:
                text = compute(flight.is_wanted)
                self._write(key, text)
        except BaseException as error:
            with self._lock:
                del self._flights[key]
            flight.future.set_exception(error)
            raise
        with self._lock:
            self._remember(key, text)
            del self._flights[key]
        flight.future.set_result(text)
        return text

    def _remember(self, key: str, text: str) -> None:
        self._memory[key] = text
        self._held_bytes += len(text)
        while self._held_bytes > self.memory_bytes and len(self._memory) > 1:
            _, oldest = self._memory.popitem(last=False)
            self._held_bytes -= len(oldest)

    def _read(self, key: str) -> str | None:
        path = self.folder / f"{key}.txt"
        try:
            mark, _, data = path.read_bytes().partition(b"\n")
        except OSError:
            return None
        with contextlib.suppress(OSError):  # of a folder that is read-only
            os.utime(path)  # marks it as used, for the order in which files leave
        # What a full disk, a crash or an older version left behind is computed anew.
        return data.decode("utf-8") if mark == _mark(data) else None

    def _write(self, key: str, text: str) -> None:
        data = text.encode("utf-8")
        with contextlib.suppress(OSError):  # a full or read-only disk: memory still holds it
            self.folder.mkdir(parents=True, exist_ok=True)
            with replacing(self.folder / f"{key}.txt") as part:
                part.write_bytes(_mark(data) + b"\n" + data)
            make_room(self.folder, "*.txt", self.disk_bytes)


def _mark(data: bytes) -> bytes:
    return b"crc32 %08x" % zlib.crc32(data)
