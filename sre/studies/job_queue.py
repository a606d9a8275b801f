"""Training jobs one at a time, each in a process of its own that outlives the page."""

import contextlib
import subprocess
import sys
import threading
from dataclasses import dataclass, field, replace
from pathlib import Path

from filelock import FileLock, Timeout

from sre.errors import SettingError, SREError, UnknownNameError
from sre.studies.job_settings import JobSettings
from sre.studies.jobs import OVER, Job, Status, list_jobs, make_job
from sre.studies.worker import BUSY, LOCK

MOST_QUEUED, MOST_KEPT = 20, 60  # jobs; what is over and oldest leaves first
LOG = "log.txt"
_PROGRAM = Path(__file__).resolve().parents[2]  # where `python -m sre` is found
_BROKE_OFF = "the worker ended before the run did; resuming goes on from the last whole epoch"
_NEVER_BEGAN = "the worker could not start; see log.txt in the job's folder"


@dataclass(slots=True)
class JobQueue:
    """The jobs of one folder; safe from many threads, and beside other apps on the folder."""

    folder: Path
    data_dir: Path
    output: Path  # folder of the checkpoints that come of it
    device: str = "cpu"
    _process: "subprocess.Popen[bytes] | None" = None
    _current: Job | None = None  # what the process works at
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def start(self, settings: JobSettings) -> Job:
        """Queue a new job; where no other runs, its worker starts now.

        Raises: SettingError: the queue is full; CheckpointError: the disk does not take it
        """
        with self._lock:
            waiting = [s for _, s in self.jobs() if s.state not in OVER]
            if len(waiting) >= MOST_QUEUED:
                raise SettingError(
                    f"the queue is full, with {MOST_QUEUED} runs; wait for one to end or remove one"
                )
            self._forget_oldest()
            job = make_job(self.folder, settings)
        self.pump()
        return job

    def find_or_start(self, settings: JobSettings) -> tuple[Job, bool]:
        """Give the job that is under way or waits with these settings, or start one.

        The same settings give the same network: a button that is pressed twice means it once.

        Returns: the job, and whether it is new
        Raises: as ``start``
        """
        with self._lock:
            for job, status in self.jobs():
                with contextlib.suppress(SREError):
                    is_ahead = status.state not in OVER and not job.is_asked_to_stop()
                    if is_ahead and job.settings() == settings:
                        return job, False
            return self.start(settings), True

    def jobs(self) -> list[tuple[Job, Status]]:
        """All jobs with how they stand, oldest first."""
        return [(job, self.status(job)) for job in list_jobs(self.folder)]

    def find(self, name: str) -> Job:
        """Find a job by its name, which may be anything.

        Raises: UnknownNameError: there is none
        """
        for job in list_jobs(self.folder):
            if job.name == name:
                return job
        raise UnknownNameError(f"there is no run {name[:40]!r}; it may have been removed")

    def status(self, job: Job) -> Status:
        """Tell how a job stands; running without a worker is interrupted."""
        status = job.status()
        if status.state != "running" or self._is_worker_alive():
            return status
        status = job.status()  # it may have ended just now
        if status.state != "running":
            return status
        return replace(status, state="interrupted", message=_BROKE_OFF, left_s=None)

    def stop(self, job: Job) -> None:
        """Ask a running job to end with what is best so far; a queued one is removed."""
        with self._lock:
            match self.status(job).state:
                case "running":
                    job.ask_to_stop()
                case "queued" if not self._is_worker_alive(of=job):
                    job.remove()
                case "queued":
                    job.ask_to_stop()

    def resume(self, job: Job) -> None:
        """Queue a job again that broke off; it goes on after its last whole epoch.

        Raises: SettingError: it did not break off
        """
        with self._lock:
            if self.status(job).state not in ("interrupted", "failed"):
                raise SettingError(f"run {job.name} did not break off; start a new one")
            job.queue()
        self.pump()

    def remove(self, job: Job) -> None:
        """Delete a job that is over, or not yet begun; its checkpoint stays.

        Raises: SettingError: it runs
        """
        with self._lock:
            state = self.status(job).state  # a worker may still be closing when the job is over
            if state == "running" or (state == "queued" and self._is_worker_alive(of=job)):
                raise SettingError(f"run {job.name} is under way; stop it first")
            job.remove()

    def pump(self) -> None:
        """Start the worker of the job that has waited longest, if none is alive."""
        with self._lock:
            if self._is_worker_alive():
                return
            waiting = [(s.changed, job) for job, s in self.jobs() if s.state == "queued"]
            if not waiting:
                return
            job = min(waiting, key=lambda found: found[0])[1]
            self._process = process = self._spawn(job)
            self._current = job
        threading.Thread(target=self._follow, args=(process, job), daemon=True).start()

    def _spawn(self, job: Job) -> "subprocess.Popen[bytes]":
        arguments = [job.folder.resolve(), "--data-dir", self.data_dir.resolve()]
        arguments += ["--output", self.output.resolve(), "--device", self.device]
        with open(job.folder / LOG, "ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "sre", "work", *map(str, arguments)],
                cwd=_PROGRAM,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl+C in the app's terminal is not meant for it
            )

    def _follow(self, process: "subprocess.Popen[bytes]", job: Job) -> None:
        status = process.wait()
        with self._lock, contextlib.suppress(OSError):
            if status not in (0, BUSY) and job.status().state == "queued":
                job.give_up(_NEVER_BEGAN)  # or it would be tried for ever
        if status != BUSY:
            self.pump()

    def _is_worker_alive(self, *, of: Job | None = None) -> bool:
        with self._lock:
            if self._process is not None and self._process.poll() is None:
                return of in (None, self._current)
            if of is not None:
                return False
            try:
                # Another app's, or one that an earlier app has left.
                with FileLock(self.folder / LOCK, timeout=0):
                    return False
            except Timeout:
                return True
            except OSError:
                return False  # the folder is not there yet

    def _forget_oldest(self) -> None:
        over = [job for job, status in self.jobs() if status.state in ("done", "failed")]
        for job in over[: max(0, len(over) - MOST_KEPT)]:
            job.remove()
