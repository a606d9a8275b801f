"""Training runs as folders: what was asked, how it stands, and what happened so far.

One process, the worker, trains; any number of others read the folder. Nothing is lost with either:
a folder whose worker has gone is offered for going on.
"""

import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from sre.errors import CheckpointError, SettingError
from sre.studies.job_settings import JobSettings
from sre.whole import replacing

State = Literal["queued", "running", "interrupted", "done", "failed"]
OVER = ("interrupted", "done", "failed")
_NAME = re.compile(r"\d{8}-\d{6}-[0-9a-f]{6}")
_SETTINGS, _STATUS, _EVENTS, _STOP = "settings.json", "status.json", "events.jsonl", "stop"
_DAMAGED = "how this run stands cannot be read; resume or remove it"
_RESERVE, _RESERVE_BYTES = "reserve", 1 << 16


@dataclass(frozen=True, slots=True)
class Status:
    """How a job stands. ``interrupted`` is never written: it is "running" without a worker."""

    state: State
    changed: float  # seconds since 1970, when it got into this state
    phase: str = ""  # loading, training or testing
    epoch: int = 0  # under way, counts from 1
    epochs: int = 0  # planned
    step: int = 0
    steps: int = 0  # in an epoch; of testing: angles
    left_s: float | None = None
    message: str = ""  # why it failed, or how it ended
    checkpoint: str = ""  # name of the file
    best_epoch: int = 0
    test: Mapping[str, float | int | None] | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """The folder of one run."""

    folder: Path

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def run_file(self) -> Path:
        """File that holds the run after each epoch."""
        return self.folder / "run.unfinished"

    def settings(self) -> JobSettings:
        """Read what was asked.

        Raises: SettingError: the folder is damaged
        """
        try:
            return JobSettings.from_request(json.loads((self.folder / _SETTINGS).read_bytes()))
        except (OSError, ValueError) as error:
            raise SettingError(
                f"the settings of job {self.name} cannot be read; remove the job and start it anew"
            ) from error

    def status(self) -> Status:
        """Read how it stands; what cannot be read stands as failed."""
        try:
            found = json.loads((self.folder / _STATUS).read_bytes())
            return Status(**{f.name: found[f.name] for f in fields(Status) if f.name in found})
        except (OSError, ValueError, TypeError):
            return Status("failed", 0.0, message=_DAMAGED)

    def write_status(self, status: Status) -> None:
        """Write the state, whole or not at all.

        Raises: OSError: it cannot be written
        """
        _write(self.folder / _STATUS, json.dumps(asdict(status)))

    def give_up(self, message: str) -> None:
        """Write down that the run has failed, for which space is kept on a disk that is full."""
        (self.folder / _RESERVE).unlink(missing_ok=True)
        now = self.status()
        self.write_status(replace(now, state="failed", changed=time.time(), message=message))

    def append(self, *events: Mapping[str, object]) -> None:
        """Add events to what happened.

        Raises: OSError: they cannot be written
        """
        with open(self.folder / _EVENTS, "ab") as file:
            # A worker that was killed may have left half a line.
            torn = file.tell() and not self._ends_whole()
            lines = "".join(json.dumps(event) + "\n" for event in events)
            file.write(b"\n" * bool(torn) + lines.encode())

    def _ends_whole(self) -> bool:
        with open(self.folder / _EVENTS, "rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read() == b"\n"

    def events(self, since: int = 0) -> tuple[list[dict[str, Any]], int]:
        """Read events from a number on, and the number to ask from next time."""
        try:
            text = (self.folder / _EVENTS).read_bytes()
        except OSError:
            return [], 0
        lines = text[: text.rfind(b"\n") + 1].splitlines()
        found = []
        for line in lines[since:]:
            try:
                found.append(json.loads(line))
            except ValueError:
                continue  # torn
        return found, len(lines)

    def ask_to_stop(self) -> None:
        """Ask the worker to keep what is best so far and to end."""
        (self.folder / _STOP).touch()

    def is_asked_to_stop(self) -> bool:
        return (self.folder / _STOP).exists()

    def queue(self) -> None:
        """Put the job at the end of the queue, anew or to go on.

        Raises: CheckpointError: the disk does not take it
        """
        try:
            (self.folder / _STOP).unlink(missing_ok=True)
            (self.folder / _RESERVE).write_bytes(b"\0" * _RESERVE_BYTES)
            epochs = self.status().epochs if (self.folder / _STATUS).exists() else 0
            self.write_status(Status("queued", time.time(), epochs=epochs))
        except OSError as error:
            raise _unwritable(error) from error

    def remove(self) -> None:
        """Delete the folder; a checkpoint that came of it stays where it is."""
        shutil.rmtree(self.folder, ignore_errors=True)


def make_job(folder: Path, settings: JobSettings) -> Job:
    """Make a queued job in the folder of all jobs.

    Raises: CheckpointError: the disk does not take it
    """
    name = f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(3)}"
    job = Job(folder / name)
    try:
        job.folder.mkdir(parents=True)
        _write(job.folder / _SETTINGS, json.dumps(settings.to_request()))
        job.queue()
    except (OSError, CheckpointError) as error:
        job.remove()
        raise error if isinstance(error, CheckpointError) else _unwritable(error) from error
    return job


def list_jobs(folder: Path) -> list[Job]:
    """List all jobs, oldest first."""
    try:
        found = sorted(path for path in folder.iterdir() if _NAME.fullmatch(path.name))
    except OSError:
        return []
    return [Job(path) for path in found]


def _write(path: Path, text: str) -> None:
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")


def _unwritable(error: OSError) -> CheckpointError:
    return CheckpointError(
        f"the job cannot be written to disk ({error.strerror}); free some space and try again"
    )
