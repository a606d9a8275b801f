"""What comes of training this model on this data set, and how well does it do when turned?"""

import platform
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from sre.checkpoints import CheckpointCard, check_writable, load_checkpoint, save_checkpoint
from sre.data.store import file_md5, load_split
from sre.data.table import find_dataset
from sre.errors import SettingError
from sre.evaluation import ANGLES_DEG, FEW_ANGLES_DEG, evaluate_angles, summarise
from sre.models import (
    CLASSIFIERS,
    build_model,
    count_multiply_adds,
    count_parameters,
    find_model,
)
from sre.protocols import find_protocol
from sre.resnet import ResNet
from sre.training import EpochDone, StepDone, TrainConfig, train


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


Event = StepDone | EpochDone | Evaluating | Saved


def run_training(
    dataset: str,
    model_name: str,
    *,
    config: TrainConfig,
    width: int,
    kernel_sizes: tuple[int, ...],
    data_dir: Path,
    output: Path,
    device: str,
    command: str,
) -> Iterator[Event]:
    """Train, choose the epoch on validation images, write the checkpoint, evaluate the file.

    The figures of the card are those of the file: it is read back, half precision and all, before
    it is evaluated. ``output`` is a folder, in which the file gets its usual name, or a file.

    Raises: SREError: the data set is not on disk, has volumes, a setting is out of range, or the
        output cannot be written; all of these before training begins
    """
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
        device=_device_name(device),
        created=datetime.now(UTC).date().isoformat(),
        versions={name: version(name) for name in ("torch", "numpy", "safetensors")}
        | {"python": platform.python_version()},
    )
    path = output if output.suffix == ".safetensors" else output / card.file_name
    check_writable(path)
    model = model.to(device)
    start, best_epoch = time.monotonic(), 0
    for event in train(
        model, splits["train"], splits["val"], config=config, is_multi_label=entry.is_multi_label
    ):
        if isinstance(event, EpochDone) and event.is_best:
            best_epoch = event.epoch
        yield event
    card = replace(card, best_epoch=best_epoch, seconds=round(time.monotonic() - start, 1))
    save_checkpoint(model, card, path)
    saved, _ = load_checkpoint(path, device=device)
    figures: dict[str, Any] = {}
    for name, split, angles in (
        ("validation", splits["val"], FEW_ANGLES_DEG),
        ("test", splits["test"], ANGLES_DEG),
    ):
        done = []
        for angle in evaluate_angles(
            saved,
            split.images,
            split.labels,
            find_protocol(config.protocol),
            side_px=config.side_px,
            is_multi_label=entry.is_multi_label,
            angles_deg=angles,
        ):
            done.append(angle)
            yield Evaluating(name, len(done), len(angles))
        figures[name] = summarise(done)
    card = replace(card, **figures)
    save_checkpoint(saved, card, path)
    yield Saved(path, card)


def _device_name(device: str) -> str:
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return f"cpu, {torch.get_num_threads()} threads"
