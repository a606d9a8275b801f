"""python -m sre train."""

import argparse
import os
from dataclasses import fields
from pathlib import Path
from typing import Any

from tqdm import tqdm

from sre.commands.common import (
    CHECKPOINTS_DIR,
    add_data_dir,
    add_device,
    check_device,
    public_command,
    set_threads,
)
from sre.data.table import DATASETS
from sre.errors import SREError
from sre.models import CLASSIFIERS
from sre.processes import ALONE, Processes, join, leave
from sre.settings import TrainConfig
from sre.studies.train_run import (
    MOST_MINUTES,
    BatchHalved,
    EpochDone,
    Evaluating,
    Planned,
    Saved,
    StepDone,
    run_training,
)

_HELP = {
    "epochs": "passes over the training images",
    "batch_size": "images a step",
    "learning_rate": "peak of the schedule: warm-up, then cosine",
    "weight_decay": "AdamW's, spared on norms and biases",
    "warmup": "share of the steps in which the learning rate rises",
    "scale": "largest random scaling, as a share",
    "shift": "largest random shift, as a share of the side",
    "jitter": "largest random change of brightness and contrast",
    "mask_rate": "share of training images masked to the inscribed disc",
    "rotate": "turn training images by random angles",
    "side_px": "side to which images are resized",
    "protocol": "of validation and test: disc or paper",
    "seed": "of weights, order and augmentation",
    "balance": "train the bands of radial kernels at one pace, however many pixels each has",
}


def add(commands: Any, default_dir: Path | str) -> None:
    """Describe the command."""
    run = commands.add_parser(
        "train",
        help="train a model and write its checkpoint with its card",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    run.add_argument("dataset", metavar="DATASET", help=", ".join(DATASETS))
    run.add_argument("model", metavar="MODEL", help=", ".join(CLASSIFIERS))
    run.add_argument("--width", type=int, default=16, help="channels of the stem")
    run.add_argument(
        "--kernel-sizes",
        type=_kernel_sizes,
        default=(9, 9, 5, 5),
        help="radial kernels, one a stage",
    )
    run.add_argument(
        "--blur-pools",
        action="store_true",
        help="blur before every halving, so that answers change less with small turns",
    )
    for field in fields(TrainConfig):
        flag = f"--{field.name.replace('_', '-')}"
        if field.type is bool or field.type == "bool":
            run.add_argument(flag, action="store_true", help=_HELP[field.name])
        else:
            run.add_argument(
                flag, type=type(field.default), default=field.default, help=_HELP[field.name]
            )
    run.add_argument(
        "--minutes", type=float,
        help=f"budget for training, up to {MOST_MINUTES}: fewer epochs are planned if need be",
    )  # fmt: skip
    add_data_dir(run, default_dir)
    run.add_argument(
        "--output", type=Path, default=CHECKPOINTS_DIR, help="folder, or a .safetensors file"
    )
    add_device(run)
    run.add_argument(
        "--threads", type=int, default=0, help="CPU threads, up to 256; 0 takes all cores"
    )
    run.set_defaults(run=_train)


def _kernel_sizes(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"must be odd numbers with commas between, got {text!r}; try 9,9,5,5"
        ) from error


def _train(args: argparse.Namespace, given: list[str]) -> int:
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return _train_in(ALONE, args, given)
    # Started by accelerate launch, together with others.
    processes = join(on_cpu=args.device == "cpu")
    args.device = processes.device
    try:
        return _train_in(processes, args, given)
    except SREError:
        if processes.is_main:
            raise
        return 2  # each of them would say the same
    finally:
        leave()


def _train_in(processes: Processes, args: argparse.Namespace, given: list[str]) -> int:
    check_device(args.device)
    set_threads(args.threads)
    config = TrainConfig(**{f.name: getattr(args, f.name) for f in fields(TrainConfig)})
    events = run_training(
        args.dataset,
        args.model,
        config=config,
        width=args.width,
        kernel_sizes=args.kernel_sizes,
        blur_pools=args.blur_pools,
        data_dir=args.data_dir,
        output=args.output,
        device=args.device,
        command=public_command(given),
        budget_s=None if args.minutes is None else 60 * args.minutes,
        processes=processes,
    )
    if not processes.is_main:
        for _ in events:
            pass
        return 0
    # Nothing is drawn before the first step, so that a refusal stands alone.
    with tqdm(unit="step", dynamic_ncols=True, delay=0.01) as bar:
        for event in events:
            match event:
                case Planned():
                    plan = event
                    bar.write(
                        f"{plan.parameters:,} parameters, {plan.multiply_adds:,} multiply-adds an "
                        f"image, {plan.epochs} epochs"
                    )
                case StepDone(epoch, step, steps, loss):
                    bar.total = steps * plan.epochs
                    bar.update(steps * (epoch - 1) + step - bar.n)
                    bar.set_description(f"epoch {epoch}/{plan.epochs} loss {loss:.3f}")
                case BatchHalved(epoch, batch_size):
                    bar.write(f"epoch {epoch}: memory ran out, batches of {batch_size} from here")
                case EpochDone():
                    best = ", best so far" if event.is_best else ""
                    bar.write(
                        f"epoch {event.epoch}: training loss {event.train_loss:.3f}, validation "
                        f"accuracy {event.val_accuracy:.3f} upright, "
                        f"{event.val_turned_accuracy:.3f} turned, loss {event.val_loss:.3f}{best}"
                    )
                case Evaluating(split, done, total):
                    bar.set_description(f"{split} at {done}/{total} angles")
                    bar.refresh()
                case Saved(path, card):
                    test = card.test
                    tqdm.write(
                        f"{path.name}: test accuracy {test['accuracy_at_0']:.3f} upright, "
                        f"{test['accuracy_mean']:.3f} over {test['angles']} angles, "
                        f"{test['accuracy_worst']:.3f} at the worst; consistency "
                        f"{test['consistency']:.3f}"
                    )
    return 0
