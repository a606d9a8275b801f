"""What comes of all runs of a sweep? Each is trained and evaluated once, whatever breaks off."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sre.checkpoints import check_writable, load_card
from sre.data.store import file_md5
from sre.data.table import find_dataset
from sre.errors import CheckpointError, SettingError, SREError
from sre.studies.sweep import SweepRun
from sre.studies.train_run import Event, Saved, run_training, unfinished_path

State = Literal["done", "begun", "to do", "another's"]
NEEDS_LOCKS = "a sweep needs filelock, which is not installed; run pip install 'sre-lab[train]'"


@dataclass(frozen=True, slots=True)
class Skipped:
    """A run was done before, or another process is at it."""

    run: SweepRun
    is_busy: bool


@dataclass(frozen=True, slots=True)
class Began:
    """A run starts, or goes on."""

    run: SweepRun


@dataclass(frozen=True, slots=True)
class Within:
    """Something happened within a run."""

    run: SweepRun
    event: Event


@dataclass(frozen=True, slots=True)
class Done:
    """A run is trained and evaluated."""

    run: SweepRun
    accuracy_at_0: float
    accuracy_mean: float


@dataclass(frozen=True, slots=True)
class Failed:
    """A run ended with an error; the others go on."""

    run: SweepRun
    sentence: str


SweepEvent = Skipped | Began | Within | Done | Failed


def state_of(run: SweepRun, *, data_dir: Path, output: Path) -> State:
    """Tell how far a run has come, by its files alone."""
    fingerprint = run.fingerprint(_md5(run.dataset, data_dir))
    path = output / run.file_name
    if path.exists():
        try:
            card = load_card(path)
        except CheckpointError:
            return "another's"
        if card.fingerprint != fingerprint:
            return "another's"
        return "done" if card.test else "begun"
    begun = unfinished_path(path, run.dataset, run.model, fingerprint).exists()
    return "begun" if begun else "to do"


def _md5(dataset: str, data_dir: Path) -> str:
    return file_md5(find_dataset(dataset), data_dir=data_dir) or ""


def run_sweep(
    runs: Sequence[SweepRun],
    *,
    data_dir: Path,
    output: Path,
    device: str,
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[SweepEvent]:
    """Do one run after the other; what is there already is skipped, what broke off goes on.

    Several processes may work on one folder: each run is claimed by one.

    Raises: SREError: the output folder cannot be written to
    """
    for run in runs:
        if should_stop():
            return
        yield from do_run(run, data_dir=data_dir, output=output, device=device)


def do_run(run: SweepRun, *, data_dir: Path, output: Path, device: str) -> Iterator[SweepEvent]:
    """Do one run, if it is not done and nobody is at it; what goes wrong is the last event.

    Raises: SREError: the output folder cannot be written to
    """
    try:
        from filelock import FileLock, Timeout  # noqa: PLC0415 - an extra, needed here alone
    except ImportError as error:
        raise SettingError(NEEDS_LOCKS) from error
    path = output / run.file_name
    check_writable(path)
    try:
        # The system lets go of it with the process, however that ends.
        with FileLock(output / f"{run.name}.lock", timeout=0):
            yield from _do(run, data_dir=data_dir, path=path, device=device)
    except Timeout:
        yield Skipped(run, is_busy=True)


def _do(run: SweepRun, *, data_dir: Path, path: Path, device: str) -> Iterator[SweepEvent]:
    try:
        if state_of(run, data_dir=data_dir, output=path.parent) == "done":
            yield Skipped(run, is_busy=False)
            return
        yield Began(run)
        events = run_training(
            run.dataset,
            run.model,
            config=run.config,
            width=run.width,
            kernel_sizes=run.kernel_sizes,
            blur_pools=run.blur_pools,
            data_dir=data_dir,
            output=path,
            device=device,
            command=run.command,
        )
        for event in events:
            yield Within(run, event)
            if isinstance(event, Saved):
                test = event.card.test
                yield Done(
                    run, float(test["accuracy_at_0"] or 0), float(test["accuracy_mean"] or 0)
                )
    except (SREError, RuntimeError, MemoryError, OSError) as error:
        # One run's fault is not the others'; it is told, and the next begins.
        yield Failed(run, sentence_of(error))


def sentence_of(error: Exception) -> str:
    """Say an error in one line; one of ours is its own sentence."""
    said = str(error).strip().partition("\n")[0]
    return said if isinstance(error, SREError) else f"{type(error).__name__}: {said}".rstrip(": ")
