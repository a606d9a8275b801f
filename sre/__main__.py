"""The command line: python -m sre train, sweep, evaluate, check, download, checkpoints."""

import argparse
import hashlib
import json
import math
import os
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn

import torch
from torch import nn
from tqdm import tqdm

from sre.checkpoints import CheckpointCard, list_checkpoints, load_checkpoint
from sre.data.download import download
from sre.data.table import DATASETS, find_dataset
from sre.data.transfer import Progress
from sre.errors import CheckpointError, SettingError, SREError
from sre.inspection import check_equivariance, example_input
from sre.models import CLASSIFIERS, MODELS, build_model, find_model
from sre.processes import ALONE, Processes, join, leave
from sre.protocols import PROTOCOLS
from sre.report import LEGEND
from sre.settings import TrainConfig
from sre.statistics import Interval
from sre.studies.answering import Measured
from sre.studies.evaluate_files import check_output, write_evaluation
from sre.studies.evaluate_run import RESAMPLES, EvaluationView, run_evaluation
from sre.studies.job_settings import JobSettings
from sre.studies.plan import estimate_job
from sre.studies.sweep_file import read_sweep
from sre.studies.sweep_ray import run_side_by_side
from sre.studies.sweep_run import (
    Began,
    Done,
    Failed,
    Skipped,
    SweepEvent,
    Within,
    run_sweep,
    state_of,
)
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
from sre.studies.worker import lower_priority, work

_ROOT = Path(__file__).resolve().parent.parent
# Beside the app; where the library alone is installed, in the folder one works in.
CHECKPOINTS_DIR = (_ROOT if (_ROOT / "app.py").is_file() else Path()) / "checkpoints"
CHECK_CHANNELS, CHECK_MAX_ANGLES = (1, 64), 6
CHECK_SIDES_PX = MappingProxyType({2: (8, 256), 3: (8, 64)})  # of images, of volumes
_STOPPED = "stopped before the end; what takes long goes on when the command is given again"
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
}


class _Parser(argparse.ArgumentParser):
    """Refuses in one sentence, without the usage before it; takes no abbreviated flags.

    An abbreviated --data-dir would slip a folder of this machine into the card.
    """

    def __init__(self, **settings: Any):
        super().__init__(allow_abbrev=False, **settings)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}; {self.prog} --help lists what is allowed\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; what a user can mend is one sentence on stderr and exit status 2."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    args = make_parser().parse_args(given)
    try:
        status = args.run(args, given)
        sys.stdout.flush()
        return status
    except SREError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - this is the command line
        return 2
    except KeyboardInterrupt:
        print(_STOPPED, file=sys.stderr)  # noqa: T201
        return 130
    except BrokenPipeError:
        # Who reads the output, such as head, has read enough; Python would say so at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def make_parser() -> argparse.ArgumentParser:
    """Describe the commands; one flag a setting, with its name."""
    parser = _Parser(prog="python -m sre", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    default_dir = os.environ.get("SRE_DATA_DIR") or Path.home() / ".cache" / "sre-lab" / "data"

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
    run.add_argument("--data-dir", type=Path, default=default_dir, help="also SRE_DATA_DIR")
    run.add_argument(
        "--output", type=Path, default=CHECKPOINTS_DIR, help="folder, or a .safetensors file"
    )
    run.add_argument("--device", default="cpu", help="cpu or cuda")
    run.add_argument(
        "--threads", type=int, default=0, help="CPU threads, up to 256; 0 takes all cores"
    )
    run.set_defaults(run=_train)

    sweep = commands.add_parser(
        "sweep", help="train and evaluate all models that a file names, on all its data sets"
    )
    sweep.add_argument("file", metavar="FILE.toml", type=Path, help="such as bench/accuracy.toml")
    sweep.add_argument(
        "--list", action="store_true", help="only print the runs, and which are done"
    )
    sweep.add_argument("--address", help="a cluster of Ray's; left out: this machine")
    sweep.add_argument("--no-ray", action="store_true", help="one run after the other, without Ray")
    sweep.add_argument(
        "--output", type=Path, default=Path.home() / ".cache" / "sre-lab" / "sweep",
        help="folder of the checkpoints; runs whose checkpoint is there are skipped",
    )  # fmt: skip
    sweep.add_argument("--data-dir", type=Path, default=default_dir, help="also SRE_DATA_DIR")
    sweep.add_argument("--device", default="cpu", help="cpu or cuda")
    sweep.add_argument(
        "--threads", type=int, default=0,
        help="CPU threads of a run, up to 256; 0 takes one with Ray, and all cores without",
    )  # fmt: skip
    sweep.set_defaults(run=_sweep)

    check = commands.add_parser(
        "check", help="measure, layer by layer, how exactly a network turns and mirrors"
    )
    check.add_argument(
        "model",
        metavar="MODEL_OR_CHECKPOINT",
        help=f"a .safetensors file, or an untrained {', '.join(MODELS)}",
    )
    check.add_argument(
        "--side",
        type=int,
        help="side of the input in px: by default that of the checkpoint, or 28, of volumes 24",
    )
    check.add_argument("--channels", type=int, help="of an untrained network; by default 3")
    check.add_argument(
        "--angles",
        type=_angles,
        default=(30.0, 45.0),
        help="degrees with commas between, by default 30,45",
    )
    check.add_argument(
        "--strict", action="store_true", help="exit with status 1 if a layer is not exact"
    )
    check.set_defaults(run=_check)

    rate = commands.add_parser(
        "evaluate",
        help="accuracy of networks at every angle, with intervals and paired tests",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    rate.add_argument("dataset", metavar="DATASET", help=", ".join(DATASETS))
    rate.add_argument(
        "checkpoints", metavar="CHECKPOINT", type=Path, nargs="*", default=[],
        help="files to compare; none: all of the data set in the checkpoints folder",
    )  # fmt: skip
    rate.add_argument("--protocol", default="disc", help=", ".join(PROTOCOLS))
    rate.add_argument("--split", default="test", help="test, or val for choosing by")
    rate.add_argument("--step-deg", type=float, default=10.0, help="from one angle to the next")
    rate.add_argument("--resamples", type=int, default=RESAMPLES, help="bootstrap samples")
    rate.add_argument(
        "--average-rotations", type=int, default=1,
        help="also each network's average over so many rotations, such as 8, at as many times its "
        "cost; 1: none",
    )  # fmt: skip
    rate.add_argument(
        "--with-placings", action="store_true",
        help="also turned images that are reduced, magnified or shifted",
    )  # fmt: skip
    rate.add_argument("--output", type=Path, help="a .json or .csv file for everything found")
    rate.add_argument(
        "--keep-dir", type=Path, default=Path.home() / ".cache" / "sre-lab" / "answers",
        help="folder of answers, with which a broken-off evaluation goes on",
    )  # fmt: skip
    rate.add_argument("--data-dir", type=Path, default=default_dir, help="also SRE_DATA_DIR")
    rate.add_argument("--device", default="cpu", help="cpu or cuda")
    rate.set_defaults(run=_evaluate)

    fetch = commands.add_parser("download", help="fetch a MedMNIST set, whole and checked")
    fetch.add_argument("dataset", metavar="DATASET", help="its name in lower case")
    fetch.add_argument("--size", type=int, default=28, help="image side in px: 28, 64, 128 or 224")
    fetch.add_argument("--data-dir", type=Path, default=default_dir, help="also SRE_DATA_DIR")
    fetch.set_defaults(run=_download)

    listing = commands.add_parser("checkpoints", help="list checkpoints and their figures")
    listing.add_argument("--folder", type=Path, default=CHECKPOINTS_DIR)
    listing.add_argument(
        "--index", action="store_true", help="also write index.json: file, sha256, figures, command"
    )
    listing.set_defaults(run=_checkpoints)

    # For the app, which starts it; without a help text it is not listed.
    work = commands.add_parser("work", description="Train what a job folder of the app asks for.")
    work.add_argument("folder", metavar="FOLDER", type=Path)
    work.add_argument("--data-dir", type=Path, required=True)
    work.add_argument("--output", type=Path, required=True)
    work.add_argument("--device", default="cpu")
    work.set_defaults(run=_work)
    guess = commands.add_parser("estimate", description="Time a few steps of settings on stdin.")
    guess.add_argument("--data-dir", type=Path, required=True)
    guess.add_argument("--device", default="cpu")
    guess.set_defaults(run=_estimate)
    return parser


def _kernel_sizes(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"must be odd numbers with commas between, got {text!r}; try 9,9,5,5"
        ) from error


def _angles(text: str) -> tuple[float, ...]:
    try:
        angles = tuple(float(part) for part in text.split(","))
    except ValueError:
        angles = ()
    if not 1 <= len(angles) <= CHECK_MAX_ANGLES or not all(map(math.isfinite, angles)):
        raise argparse.ArgumentTypeError(
            f"must be 1 to {CHECK_MAX_ANGLES} numbers with commas between, got {text!r}; try 30,45"
        )
    return angles


def _check_device(name: str) -> None:
    try:
        torch.empty(1, device=name).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise SettingError(f"device {name!r} is not on this machine; use --device cpu") from error


def _set_threads(count: int) -> None:
    if not 0 <= count <= 256:
        raise SettingError(f"threads must be from 0 to 256, got {count}; 0 takes all cores")
    if count > 0:
        torch.set_num_threads(count)


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
    _check_device(args.device)
    _set_threads(args.threads)
    config = TrainConfig(**{f.name: getattr(args, f.name) for f in fields(TrainConfig)})
    events = run_training(
        args.dataset,
        args.model,
        config=config,
        width=args.width,
        kernel_sizes=args.kernel_sizes,
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


def _work(args: argparse.Namespace, given: list[str]) -> int:
    lower_priority()
    return work(args.folder, data_dir=args.data_dir, output=args.output, device=args.device)


def _estimate(args: argparse.Namespace, given: list[str]) -> int:
    lower_priority()
    lower_priority()
    _check_device(args.device)
    try:
        request = json.load(sys.stdin)
    except ValueError as error:
        raise SettingError(
            "the settings on stdin are no JSON; use python -m sre train instead"
        ) from error
    settings = JobSettings.from_request(request)
    found = estimate_job(settings, data_dir=args.data_dir, device=args.device)
    print(json.dumps(asdict(found)))  # noqa: T201
    return 0


def public_command(given: Sequence[str]) -> str:
    """Write a command down without the folders of the machine that it ran on."""
    kept, skip = [], False
    for part in given:
        if skip:
            skip = False
        elif part in ("--data-dir", "--output"):
            skip = True
        elif not part.startswith(("--data-dir=", "--output=")):
            kept.append(part)
    return shlex.join(["python", "-m", "sre", *kept])


def _sweep(args: argparse.Namespace, given: list[str]) -> int:
    runs = read_sweep(args.file).runs()
    if args.list:
        for run in runs:
            state = state_of(run, data_dir=args.data_dir, output=args.output)
            print(f"{run.name}: {state}")  # noqa: T201
        return 0
    if args.no_ray and args.address:
        raise SettingError(
            f"--address {args.address} is of a cluster of Ray's; leave it or --no-ray away"
        )
    if not args.address:
        _check_device(args.device)
    _set_threads(args.threads)
    where = {"data_dir": args.data_dir, "output": args.output, "device": args.device}
    events: Iterator[SweepEvent]
    if args.no_ray:
        events = run_sweep(runs, **where)
    else:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent to anyone
        threads = max(1, args.threads)
        events = run_side_by_side(runs, **where, threads=threads, address=args.address)
    skipped: list[Skipped] = []
    failed: list[Failed] = []
    done = 0
    with tqdm(total=len(runs), unit="run", dynamic_ncols=True, delay=0.01) as bar:
        for event in events:
            match event:
                case Began(run):
                    bar.set_description(run.name)
                case Within(run, EpochDone() as epoch):
                    bar.set_description(f"{run.name} epoch {epoch.epoch}/{run.config.epochs}")
                case Skipped():
                    skipped.append(event)
                    bar.update()
                case Done(run, upright, mean):
                    done += 1
                    bar.update()
                    tqdm.write(f"{run.name}: {upright:.3f} upright, {mean:.3f} over all angles")
                case Failed(run, sentence):
                    failed.append(event)
                    bar.update()
                    tqdm.write(f"{run.name} failed: {sentence}")
    busy = sum(event.is_busy for event in skipped)
    print(  # noqa: T201
        f"{done} runs done, {len(skipped) - busy} were there, {busy} are with another process, "
        f"{len(failed)} failed; checkpoints in {args.output}"
    )
    for event in failed:
        print(f"error: {event.run.name}: {event.sentence}", file=sys.stderr)  # noqa: T201
    return 1 if failed else 0


def _check(args: argparse.Namespace, given: list[str]) -> int:
    model: nn.Module
    path = Path(args.model)
    if path.suffix == ".safetensors" or len(path.parts) > 1:
        model, card = load_checkpoint(path)
        dims, channels, usual_side = find_model(card.model).dims, card.in_channels, card.side_px
        if args.channels not in (None, channels):
            raise SettingError(
                f"{path.name} takes {channels} channels, got {args.channels}; leave --channels away"
            )
    else:
        dims = find_model(args.model).dims
        channels = _within("channels", args.channels, 3, CHECK_CHANNELS)
        usual_side = 28 if dims == 2 else 24
        torch.manual_seed(0)
        model = build_model(args.model, in_channels=channels, num_classes=10, width=16)
    side = _within("side", args.side, usual_side, CHECK_SIDES_PX[dims])
    x = example_input(in_channels=channels, side=side, dims=dims)
    report = check_equivariance(model, x, angles_deg=args.angles)
    table = report.table(width=shutil.get_terminal_size().columns)
    print(f"{table}\n\n{LEGEND}\n\n{report.headline}")  # noqa: T201
    return 1 if args.strict and not report.is_exact else 0


def _within(name: str, value: int | None, usual: int, bounds: tuple[int, int]) -> int:
    least, most = bounds
    if value is None or least <= value <= most:
        return usual if value is None else value
    raise SettingError(f"{name} must be from {least} to {most}, got {value}; try {usual}")


def _evaluate(args: argparse.Namespace, given: list[str]) -> int:
    _check_device(args.device)
    if not 1 <= args.step_deg <= 360:
        raise SettingError(f"step-deg must be from 1 to 360, got {args.step_deg:g}; try 10")
    if args.output is not None:
        check_output(args.output)
    name = find_dataset(args.dataset).name
    shipped = list_checkpoints(CHECKPOINTS_DIR)
    events = run_evaluation(
        name,
        args.checkpoints or [path for path, card in shipped.items() if card.dataset == name],
        data_dir=args.data_dir,
        protocol=args.protocol,
        split=args.split,
        angles_deg=[args.step_deg * i for i in range(math.ceil(360 / args.step_deg))],
        resamples=args.resamples,
        average_rotations=args.average_rotations,
        with_placings=args.with_placings,
        device=args.device,
        keep_dir=args.keep_dir,
    )
    with tqdm(unit="answer", unit_scale=True, dynamic_ncols=True, delay=0.01) as bar:
        for event in events:
            match event:
                case Measured(name, done, total):
                    bar.total = total
                    bar.set_description(name)
                    bar.update(done - bar.n)
                case EvaluationView():
                    view = event
    print(_evaluation_table(view))  # noqa: T201
    if args.output is not None:
        write_evaluation(view, args.output)
    return 0


def _evaluation_table(view: EvaluationView) -> str:
    def percent(found: Interval) -> str:
        return f"{100 * found.value:.1f} ({100 * found.low:.1f} to {100 * found.high:.1f})"

    lines = [f"{view.images} {view.split} images of {view.dataset}, protocol {view.protocol}"]
    for model in view.models:
        upright, worst = model.angles[0], model.worst_angle_deg
        lines += [
            f"{model.name}: {model.card.parameters:,} parameters, "
            f"{model.multiply_adds:,} multiply-adds an image",
            f"  accuracy upright {percent(upright.accuracy)}, AUC {percent(upright.auc)}",
            f"  mean over {len(model.angles)} angles {percent(model.accuracy_mean)}, "
            f"standard deviation {100 * model.accuracy_spread:.1f}",
            f"  worst {percent(model.accuracy_worst)}, at {worst:g} degrees",
            f"  consistency {percent(model.consistency)}",
            *(f"  {under.title}: {percent(under.accuracy)}" for under in model.conditions),
        ]
    lines += [
        f"{pair.first} less {pair.second}: upright {percent(pair.upright)}, "
        f"p = {pair.upright_p:.2g}; mean {percent(pair.mean)}, p = {pair.mean_p:.2g}"
        for pair in view.pairs
    ]
    return "\n".join([*lines, view.headline])


def _download(args: argparse.Namespace, given: list[str]) -> int:
    entry = find_dataset(args.dataset)
    with tqdm(unit="B", unit_scale=True, desc=entry.title, delay=0.01) as bar:

        def show(progress: Progress) -> None:
            bar.total = progress.total
            bar.update(progress.done - bar.n)

        path = download(entry, args.size, args.data_dir, on_progress=show)
    tqdm.write(f"{path} is there and whole")
    return 0


def _checkpoints(args: argparse.Namespace, given: list[str]) -> int:
    cards = list_checkpoints(args.folder)
    for path, card in cards.items():
        figures = (card.test.get(name) for name in ("accuracy_at_0", "accuracy_mean"))
        upright, turned = ("unknown" if f is None else f"{f:.3f}" for f in figures)
        line = f"{path.name}: {card.parameters} parameters, test {upright}, turned {turned}"
        print(line)  # noqa: T201
    if not cards:
        print(f"no checkpoints in {args.folder}; python -m sre train makes one")  # noqa: T201
    if args.index:
        _write_index(args.folder, cards)
    return 0


def _write_index(folder: Path, cards: Mapping[Path, CheckpointCard]) -> None:
    rows = [
        {
            "file": path.name,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "test": dict(card.test),
            "command": card.command,
        }
        for path, card in cards.items()
    ]
    path = folder / "index.json"
    try:
        path.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise CheckpointError(
            f"cannot write {path}: {error.strerror}; choose a folder that you may write to"
        ) from error


if __name__ == "__main__":
    sys.exit(main())
