"""The process that trains: one job, from its folder and into it."""

import math
import os
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from filelock import FileLock, Timeout

from sre.devices import open_device
from sre.errors import SettingError, SREError
from sre.studies.jobs import Job, Status
from sre.studies.train_run import (
    BatchHalved,
    EpochDone,
    Evaluating,
    Event,
    Planned,
    Saved,
    StepDone,
    run_training,
)

LOCK = ".worker.lock"  # in the folder of all jobs; held by the one worker that is alive
BUSY = 75  # exit status: another worker is alive
_PATIENCE_S = 5.0
_NICENESS = 10  # so that the pages stay quick
# How often, in seconds, the state is written, and at least how far apart points of the curve lie:
# half a second at first, and later on few enough for a browser.
_STATUS_S, _POINT_S, _POINTS = 0.4, 0.5, 250


def work(folder: Path, *, data_dir: Path, output: Path, device: str) -> int:
    """Train what the job in this folder asks for, going on where an earlier worker broke off.

    What a user can mend ends as a sentence in the job's status. Anything else ends this process,
    and the job can be taken up again.

    Returns: an exit status: 0, or BUSY
    """
    job, lock = Job(folder), FileLock(folder.parent / LOCK)
    try:
        held = lock.acquire(timeout=_PATIENCE_S)
    except Timeout:
        return BUSY
    with held:
        if job.status().state != "queued":
            return 0
        try:
            _train(job, data_dir=data_dir, output=output, device=device)
        except SREError as error:
            job.give_up(str(error))
        except MemoryError:
            job.give_up("memory ran out; choose a smaller width or batch")
        except OSError as error:
            job.give_up(
                f"the run cannot be written down ({error.strerror}); free some space and resume"
            )
    return 0


def lower_priority() -> None:
    """Let other processes go first, where the system knows of such a thing."""
    if hasattr(os, "nice"):
        os.nice(_NICENESS)


def _train(job: Job, *, data_dir: Path, output: Path, device: str) -> None:
    try:
        open_device(device)
    except (RuntimeError, AssertionError) as error:
        raise SettingError(
            f"the device {device} does not answer; when it is back, resume, or start the app with "
            "--device cpu"
        ) from error
    settings = job.settings()
    recorder = _Recorder(job)
    recorder.write(phase="loading")
    for event in run_training(
        **settings.training(),
        data_dir=data_dir,
        output=output,
        keep=job.run_file,
        device=device,
        should_stop=job.is_asked_to_stop,
    ):
        recorder.take(event)


@dataclass(slots=True)
class _Recorder:
    """Writes events down: all that are few, and of the steps enough for a curve."""

    job: Job
    status: Status = field(init=False)
    began: float = field(default_factory=time.monotonic)
    goes_on: bool = False  # where an earlier worker broke off
    told: int = 0  # epochs that the file has from it
    at: tuple[int, int, int] = (0, 0, 0)  # epoch, step and steps of the last step
    done_before: float = math.nan  # share of the steps that an earlier worker took
    written: float = -math.inf  # when the status was
    drawn: float = -math.inf  # when the last point of the curve was

    def __post_init__(self) -> None:
        self.status = Status("running", time.time())
        events, _ = self.job.events()
        self.goes_on = any(e.get("kind") in ("step", "epoch") for e in events)
        self.told = max((e["epoch"] for e in events if e.get("kind") == "epoch"), default=0)

    def write(self, **changes: object) -> None:
        self.status = replace(self.status, **changes)  # type: ignore[arg-type]
        self.job.write_status(self.status)
        self.written = time.monotonic()

    def take(self, event: Event) -> None:
        now = time.monotonic()
        match event:
            case Planned(epochs, parameters, multiply_adds, estimate):
                planned = {"parameters": parameters, "multiply_adds": multiply_adds}
                self.job.append({"kind": "planned", "epochs": epochs, **planned})
                left = None if estimate is None else estimate.epoch_s * epochs
                self.write(phase="training", epochs=epochs, left_s=left)
            case StepDone():
                self._step(event, now)
            case BatchHalved(epoch, batch_size):
                self.job.append({"kind": "halved", "epoch": epoch, "batch_size": batch_size})
            case EpochDone():
                self._epoch(event)
            case Evaluating(split, done, total):
                if done in (1, total) or now - self.written > _STATUS_S:
                    is_first = split == "validation"
                    phase = "testing on validation images" if is_first else "testing"
                    self.write(phase=phase, step=done, steps=total, left_s=None)
            case Saved(path, card):
                self.job.append({"kind": "saved", "checkpoint": path.name, "test": dict(card.test)})
                self.write(
                    state="done",
                    changed=time.time(),
                    phase="",
                    checkpoint=path.name,
                    test=dict(card.test),
                    message=self._ending(),
                    left_s=None,
                )

    def _ending(self) -> str:
        epochs, best = self.status.epochs, self.status.best_epoch
        epoch, step, steps = self.at
        kept = f"epoch {best}, the best, is kept"
        if (epoch == epochs and step == steps) or not epoch:
            return f"all {epochs} epochs are done; {kept}" if epochs > 1 else "the epoch is done"
        why = "stopped" if self.job.is_asked_to_stop() else "the time was up"
        return f"{why} in epoch {epoch} of {epochs}; {kept}"

    def _step(self, event: StepDone, now: float) -> None:
        self.at = event.epoch, event.step, event.steps
        share = (event.epoch - 1 + event.step / event.steps) / self.status.epochs
        if math.isnan(self.done_before):
            self.done_before = share - 1 / event.steps / self.status.epochs
            self.began = now
            if self.goes_on:
                self.job.append({"kind": "resumed", "epoch": event.epoch - 1})
        since = now - self.began
        if now - self.drawn > max(_POINT_S, since / _POINTS) or event.step == event.steps:
            x = round(event.epoch - 1 + event.step / event.steps, 4)
            self.job.append({"kind": "step", "x": x, "loss": round(event.loss, 5)})
            self.drawn = now
        if now - self.written > _STATUS_S:
            new = share - self.done_before
            left = since * (1 - share) / new if since > 1 and new > 0 else self.status.left_s
            self.write(epoch=event.epoch, step=event.step, steps=event.steps, left_s=left)

    def _epoch(self, event: EpochDone) -> None:
        best = event.epoch if event.is_best else self.status.best_epoch
        self.write(epoch=event.epoch, best_epoch=best)
        if event.epoch <= self.told:
            return
        self.job.append(
            {
                "kind": "epoch",
                "epoch": event.epoch,
                "train_loss": round(event.train_loss, 5),
                "val_loss": round(event.val_loss, 5),
                "upright": round(event.val_accuracy, 5),
                "turned": round(event.val_turned_accuracy, 5),
                "is_best": event.is_best,
                "seconds": round(event.seconds, 1),
            }
        )
