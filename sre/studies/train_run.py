"""What comes of training this model on this data set, and how well does it do when turned?"""

import platform
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from sre.checkpoints import (
    CheckpointCard,
    check_writable,
    load_card,
    load_checkpoint,
    save_checkpoint,
)
from sre.data.split import Split
from sre.data.store import file_md5, load_split
from sre.data.table import find_dataset
from sre.errors import CheckpointError, SettingError, TrainingError
from sre.evaluation import ANGLES_DEG, FEW_ANGLES_DEG, angle_done, summarise
from sre.models import (
    CLASSIFIERS,
    build_model,
    count_multiply_adds,
    count_parameters,
    find_model,
)
from sre.poses import Pose
from sre.processes import ALONE, Processes, share_norms
from sre.protocols import find_protocol
from sre.resnet import ResNet
from sre.runstate import load_facts
from sre.settings import TrainConfig
from sre.studies.answering import Asking, Measured
from sre.studies.contenders import Contender
from sre.studies.estimate import Estimate, estimate_run
from sre.training import BatchHalved, EpochDone, StepDone, train

MOST_MINUTES = 7 * 24 * 60


@dataclass(frozen=True, slots=True)
class Planned:
    """What is about to be trained; with a budget, as many epochs as are likely to fit."""

    epochs: int
    parameters: int
    multiply_adds: int  # of one image
    estimate: Estimate | None  # None without a budget, or where an unfinished run goes on


@dataclass(frozen=True, slots=True)
class Evaluating:
    """One angle of the evaluation after training is done."""

    split: str
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Saved:
    """The checkpoint is on disk."""

    path: Path
    card: CheckpointCard


Event = Planned | StepDone | EpochDone | BatchHalved | Evaluating | Saved


def run_training(
    dataset: str,
    model_name: str,
    *,
    config: TrainConfig,
    width: int,
    kernel_sizes: tuple[int, ...] = (9, 9, 5, 5),
    blur_pools: bool = False,
    data_dir: Path,
    output: Path,
    keep: Path | None = None,
    device: str,
    command: str,
    budget_s: float | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    processes: Processes = ALONE,
) -> Iterator[Event]:
    """Train, choose the epoch on validation images, write the checkpoint, evaluate the file.

    The figures of the card are those of the file: it is read back, half precision and all, before
    it is evaluated. What is unfinished lies beside it, and the same call goes on from there.

    Args: output: a file, or a folder in which the checkpoint gets its usual name, with the run's
            fingerprint if that is taken: by another run, or by this one when it was cut shorter
        keep: file for what is unfinished, by default one beside the output
        budget_s: of training; fewer epochs than ``config`` says are planned if need be
        should_stop: asked at every step; what is best so far is then kept and evaluated
        processes: those that train together; each calls this, and the main one evaluates and writes
    Raises: SREError: the data set is not on disk, has volumes, a setting is out of range, or the
        output cannot be written or is another run's; all of these before training begins
        TrainingError: training broke off; the best epoch so far, if any, is in the output
    """
    if budget_s is not None and processes.count > 1:
        raise SettingError(
            "a budget of time is for one process, as several would plan differently; give the "
            "number of epochs instead"
        )
    if budget_s is not None and not 1 <= budget_s <= 60 * MOST_MINUTES:
        raise SettingError(
            f"the budget must be from 1 second to {MOST_MINUTES} minutes, got {budget_s:g} "
            "seconds; try 2 minutes"
        )
    entry = find_dataset(dataset)
    if entry.dimensions != 2:
        raise SettingError(
            f"{entry.title} holds volumes, and the models take images; choose a 2-D data set"
        )
    if find_model(model_name).name not in CLASSIFIERS:
        raise SettingError(
            f"{model_name} labels pixels or takes volumes, and training is for classes of images; "
            f"choose from {', '.join(CLASSIFIERS)}"
        )
    splits = {s: load_split(dataset, s, data_dir=data_dir) for s in ("train", "val", "test")}
    torch.manual_seed(config.seed)
    model = build_model(
        model_name,
        in_channels=entry.channels,
        num_classes=len(entry.classes),
        width=width,
        kernel_sizes=kernel_sizes,
        blur_pools=blur_pools,
    )
    assert isinstance(model, ResNet)  # all classifiers are
    card = CheckpointCard(
        dataset=dataset,
        classes=entry.classes,
        is_multi_label=entry.is_multi_label,
        in_channels=entry.channels,
        side_px=config.side_px,
        model=model_name,
        width=width,
        kernel_sizes=kernel_sizes,
        blur_pools=blur_pools,
        rotates_in_training=config.rotate,
        protocol=config.protocol,
        parameters=count_parameters(model),
        multiply_adds=count_multiply_adds(model, in_channels=entry.channels, side=config.side_px),
        config=asdict(config),
        command=command,
        dataset_md5=file_md5(entry, data_dir=data_dir) or "",
        split_sizes={name: len(split) for name, split in splits.items()},
        seed=config.seed,
        epochs=config.epochs,
        device=_device_name(device, processes),
        created=datetime.now(UTC).date().isoformat(),
        versions={name: version(name) for name in ("torch", "numpy", "safetensors")}
        | {"python": platform.python_version()},
    )
    settings = card.fingerprint if budget_s is None else f"{card.fingerprint}-{budget_s:g}s"
    check_writable(_place(output, card))
    keep = keep or unfinished_path(output, card.dataset, card.model, settings)
    model = model.to(device)
    if processes.count > 1:
        share_norms(model)
    parts = splits["train"], splits["val"]
    kept, estimate, began = load_facts(keep, settings=settings), None, time.monotonic()
    if kept is not None:
        config = replace(config, epochs=kept["epochs"])
        began -= kept["history"][-1]["seconds"]  # of the budget, too
    elif budget_s is not None:
        estimate = estimate_run(model, *parts, config=config, is_multi_label=card.is_multi_label)
        config = replace(config, epochs=estimate.epochs_within(budget_s, most=config.epochs))
    card = replace(card, config=asdict(config))
    yield Planned(config.epochs, card.parameters, card.multiply_adds, estimate)

    def is_over() -> bool:
        late = budget_s is not None and time.monotonic() - began > budget_s
        return late or should_stop()

    fault, is_cut = None, False
    try:
        for event in train(
            model,
            *parts,
            config=config,
            is_multi_label=card.is_multi_label,
            keep=keep,
            settings=settings,
            should_stop=is_over,
            processes=processes,
        ):
            if isinstance(event, StepDone):
                is_cut = event.step < event.steps
            if isinstance(event, EpochDone):
                best = event.epoch if event.is_best else card.best_epoch
                seconds = round(event.seconds, 1)
                card = replace(
                    card,
                    epochs=event.epoch,
                    best_epoch=best,
                    seconds=seconds,
                    cut_short=is_cut,
                )
            yield event
    except TrainingError as error:
        if not card.best_epoch or not processes.is_main:
            raise
        fault = error
    if not processes.is_main:
        return
    path = _place(output, card)
    # Where a run is repeated, the earlier file stays, figures and all, until there are new ones.
    is_repeated = path.exists() and fault is None
    written = keep.with_suffix(".testing") if is_repeated else path
    save_checkpoint(model, card, written)
    if fault is not None:
        raise TrainingError(
            f"{fault}; epoch {card.best_epoch}, the best so far, is kept in {path.name}"
        ) from fault
    saved, _ = load_checkpoint(written, device=device)
    figures: dict[str, Any] = {}
    # The same function, a third faster.
    who = Contender(path.name, written, card, 1, saved.fused(), digest="")
    for name, split, angles in (
        ("validation", splits["val"], FEW_ANGLES_DEG),
        ("test", splits["test"], ANGLES_DEG),
    ):
        figures[name] = yield from _evaluate(who, name, split, angles, device)
    card = replace(card, **figures)
    save_checkpoint(saved, card, path)
    if is_repeated:
        written.unlink(missing_ok=True)
    keep.unlink(missing_ok=True)
    yield Saved(path, card)


def _evaluate(
    who: Contender, name: str, split: Split, angles_deg: Sequence[float], device: str
) -> Generator[Evaluating, None, dict[str, float | int | None]]:
    """Ask a network about a split at all angles, and give the figures that a card keeps."""
    card = who.card
    protocol = find_protocol(card.protocol)
    asking = Asking([who], split.images, protocol, card.is_multi_label, "", device)
    poses, told = [Pose(angle) for angle in angles_deg], 0
    for event in asking.ask(poses):
        if isinstance(event, Measured):
            done = event.done * len(poses) // event.total
            if done > told:
                told = done
                yield Evaluating(name, done, len(poses))
            continue
        found = [
            angle_done(
                pose.angle_deg,
                event[who.name, pose],
                split.labels,
                is_multi_label=card.is_multi_label,
            )
            for pose in poses
        ]
    return summarise(found)


def unfinished_path(output: Path, dataset: str, model: str, settings: str) -> Path:
    """Name the file that holds a run until it is done, beside its checkpoint."""
    folder = output.parent if output.suffix == ".safetensors" else output
    return folder / f"{dataset}-{model}-{settings}.unfinished"


def _place(output: Path, card: CheckpointCard) -> Path:
    """Find the file's name: in a folder one that no other checkpoint has."""
    if output.suffix == ".safetensors":
        if _is_free(output, card, takes_shorter=True):
            return output
        raise CheckpointError(
            f"{output.name} is the checkpoint of another run; name another file or delete it"
        )
    stem = card.file_name.removesuffix(".safetensors")
    names = [stem, *(f"{stem}-{card.fingerprint}{n}" for n in ("", *range(-2, -1000, -1)))]
    return next(p for n in names if _is_free(p := output / f"{n}.safetensors", card))


def _is_free(path: Path, card: CheckpointCard, *, takes_shorter: bool = False) -> bool:
    """Tell whether nothing is there but this very run: whole, and so the same, or not yet tested.

    Args: takes_shorter: also one that was stopped before; whoever names its file wants more of it
    """
    try:
        there = load_card(path) if path.exists() else card
    except CheckpointError:
        return False
    ours, its = (card.epochs, not card.cut_short), (there.epochs, not there.cut_short)
    is_same = its == ours and not card.cut_short
    is_begun = its <= ours and (takes_shorter or not there.test)
    return there.fingerprint == card.fingerprint and (is_same or is_begun)


def _device_name(device: str, processes: Processes) -> str:
    if device.startswith("cuda"):
        name = torch.cuda.get_device_name(device)
    else:
        name = f"cpu, {torch.get_num_threads()} threads"
    return name if processes.count == 1 else f"{processes.count} x {name}"
