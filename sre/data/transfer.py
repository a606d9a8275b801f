"""One file over HTTP: retried after faults, resumed where the server allows it."""

import errno
import re
import shutil
import socket
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse, responses
from io import BufferedIOBase
from pathlib import Path
from typing import Literal
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from sre.errors import DataError, Dropped

_PIECE = 1 << 16  # bytes
_REPORT_EVERY_S = 0.1
_PASSING_CODES = {408, 425, 429, 500, 502, 503, 504}


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a download is; ``total`` is None while the server has not told it."""

    done: int  # bytes
    total: int | None  # bytes
    state: Literal["waiting", "downloading", "retrying", "checking", "done"]
    message: str


class _Interrupted(Exception):
    def __init__(self, cause: str, *, is_passing: bool = True):
        super().__init__(cause)
        self.is_passing = is_passing


class Transfer:
    """Bring a ``.part`` file to its full length.

    A ``.part`` that is there already is continued. If the transfer fails, it is kept where the
    server takes up at any byte, and the error says so; otherwise it is removed.
    """

    def __init__(
        self,
        url: str,
        part: Path,
        *,
        name: str,
        most: int,
        pauses_s: tuple[float, ...],
        timeout_s: float,
    ):
        self.url, self.part, self.name, self.most = url, part, name, most
        self.pauses_s, self.timeout_s = pauses_s, timeout_s
        self.host = urlsplit(url).netloc
        self.done = 0
        self.total: int | None = None
        # Put together, in the last run, from several answers, so perhaps from two versions.
        self.is_pieced = False
        self.can_resume = True
        self.validator: str | None = None
        self.last_report_s = 0.0

    def run(self, report: Callable[[Progress], None], is_stopped: Callable[[], bool]) -> None:
        """Raises: DataError: what failed, and the cure; Dropped: asked to stop"""
        self.report, self.is_stopped = report, is_stopped
        self.is_pieced = False
        try:
            self._run()
        except (DataError, Dropped):
            if not self.can_resume or self._size() == 0:
                self.discard()
            raise

    def _run(self) -> None:
        for pause_s in (*self.pauses_s, None):
            try:
                return self._try_once()
            except _Interrupted as error:
                if pause_s is None or not error.is_passing:
                    raise self._fault(str(error), self._cure(error.is_passing)) from error
                self._tell("retrying", f"{error}; trying again in {pause_s:g} s")
                self._sleep(pause_s)

    def _try_once(self) -> None:
        have = self._size()
        response = self._request(have)
        if response is None:
            self.done = self.total = have
            self.is_pieced = True
            return
        with closing(response):
            self.done = self._start_of(response, have)
            if self.total is not None and self.total > self.most:
                raise self._too_large(self.total)
            self._check_space()
            try:
                with self.part.open("ab" if self.done else "wb") as file:
                    self._copy(response, file)
            except OSError as error:  # the network's own are _Interrupted by now
                raise self._disk_fault(error) from error
        if self.total is not None and self.done < self.total:
            got = f"{megabytes(self.done)} of {megabytes(self.total)}"
            raise _Interrupted(f"{self.host} broke off after {got}")

    def _request(self, have: int) -> HTTPResponse | None:
        """Ask for what is missing; None: nothing is."""
        headers = {"User-Agent": "sre-lab", "Accept-Encoding": "identity"}
        if have:
            headers["Range"] = f"bytes={have}-"
            if self.validator:
                headers["If-Range"] = self.validator
        try:
            return urlopen(Request(self.url, headers=headers), timeout=self.timeout_s)
        except HTTPError as error:
            with error:
                if error.code == 416 and have:
                    if error.headers.get("Content-Range") == f"bytes */{have}":
                        return None
                    self.discard()
                    raise _Interrupted(f"{self.host} has another file than before") from error
                cause = f"{self.host} answered {error.code} {responses.get(error.code, '')}".strip()
                raise _Interrupted(cause, is_passing=error.code in _PASSING_CODES) from error
        except URLError as error:
            # An unknown host right at the start means no network: waiting would not help.
            is_passing = bool(self.done) or not isinstance(error.reason, socket.gaierror)
            cause = f"{self.host} cannot be reached ({_text(error.reason)})"
            raise _Interrupted(cause, is_passing=is_passing) from error
        except (HTTPException, OSError) as error:
            raise _Interrupted(f"{self.host} broke off ({_text(error)})") from error

    def _start_of(self, response: HTTPResponse, have: int) -> int:
        """Learn from the headers where the body starts, and how long the whole is."""
        headers = response.headers
        tag = headers.get("ETag", "")
        self.validator = tag if tag and not tag.startswith("W/") else headers.get("Last-Modified")
        self.can_resume = response.status == 206 or headers.get("Accept-Ranges") == "bytes"
        if response.status == 206:
            span = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", headers.get("Content-Range", ""))
            if span is None or int(span[1]) != have:
                self.discard()
                raise _Interrupted(f"{self.host} sent another piece than the one asked for")
            self.total, self.is_pieced = int(span[2]), True
            return have
        length = headers.get("Content-Length", "")
        self.total = int(length) if length.isdecimal() else None
        return 0

    def _copy(self, response: HTTPResponse, file: BufferedIOBase) -> None:
        while True:
            if self.is_stopped():
                raise Dropped(f"the download of {self.name} was stopped")
            try:
                piece = response.read1(_PIECE)
            except (HTTPException, OSError) as error:
                raise _Interrupted(f"{self.host} broke off ({_text(error)})") from error
            if not piece:
                return
            file.write(piece)
            self.done += len(piece)
            if self.done > self.most:
                raise self._too_large(self.done)
            if time.monotonic() - self.last_report_s > _REPORT_EVERY_S:
                of = f" of {megabytes(self.total)}" if self.total else ""
                self._tell("downloading", f"{megabytes(self.done)}{of}")

    def _tell(self, state: Literal["downloading", "retrying"], message: str) -> None:
        self.last_report_s = time.monotonic()
        self.report(Progress(self.done, self.total, state, message))

    def _sleep(self, pause_s: float) -> None:
        end_s = time.monotonic() + pause_s
        while (left_s := end_s - time.monotonic()) > 0:
            if self.is_stopped():
                raise Dropped(f"the download of {self.name} was stopped")
            time.sleep(min(left_s, 0.1))

    def _check_space(self) -> None:
        needed = (self.total or 0) - self.done
        if shutil.disk_usage(self.part.parent).free < needed:
            raise self._full_fault(needed)

    def _disk_fault(self, error: OSError) -> DataError:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return self._full_fault((self.total or self.done) - self.done)
        return folder_fault(self.part.parent, self.name, error)

    def _full_fault(self, needed: int) -> DataError:
        self.can_resume = False  # hand the space back
        return self._fault(
            f"the disk of {self.part.parent} is full, {megabytes(needed)} more are needed",
            "free some space and download it again",
        )

    def _too_large(self, length: int) -> DataError:
        self.can_resume = False
        return self._fault(
            f"{self.host} sends {megabytes(length)}, more than the set can hold",
            "check the network, as this is not the official file",
        )

    def _fault(self, cause: str, cure: str) -> DataError:
        return DataError(f"{self.name} was not downloaded: {cause}; {cure}")

    def _cure(self, is_passing: bool) -> str:
        if self.can_resume and self._size():
            kept = megabytes(self._size())
            return f"check the network and try again, it goes on from the {kept} that are kept"
        if is_passing:
            return f"try again later, or put the file from {self.url} into {self.part.parent}"
        return f"check the network, or put the file from {self.url} into {self.part.parent}"

    def _size(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def discard(self) -> None:
        self.part.unlink(missing_ok=True)
        self.done = 0


def folder_fault(folder: Path, name: str, error: OSError) -> DataError:
    """Say that the folder cannot be written to, whatever the reason, and how to choose another."""
    is_file = folder.exists() and not folder.is_dir()
    cause = "it is a file" if is_file else _text(error)
    return DataError(
        f"{folder} cannot take {name} ({cause}); choose a folder that you may write to, with "
        "--data-dir or SRE_DATA_DIR"
    )


def megabytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 50_000 else f"{count} bytes"


def _text(error: BaseException | str) -> str:
    if isinstance(error, HTTPException):  # its text quotes what the server sent
        return "no proper HTTP answer"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
