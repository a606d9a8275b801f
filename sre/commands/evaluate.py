"""python -m sre evaluate."""

import argparse
import math
from pathlib import Path
from typing import Any

from tqdm import tqdm

from sre.checkpoints import list_checkpoints
from sre.commands.common import CHECKPOINTS_DIR, add_data_dir, add_device, check_device
from sre.data.table import DATASETS, find_dataset
from sre.errors import SettingError
from sre.home import ANSWERS
from sre.protocols import PROTOCOLS
from sre.statistics import Interval
from sre.studies.answering import Measured
from sre.studies.evaluate_files import check_output, write_evaluation
from sre.studies.evaluate_run import RESAMPLES, EvaluationView, run_evaluation


def add(commands: Any, default_dir: Path | str) -> None:
    """Describe the command."""
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
        "--keep-dir", type=Path, default=ANSWERS,
        help="folder of answers, with which a broken-off evaluation goes on",
    )  # fmt: skip
    add_data_dir(rate, default_dir)
    add_device(rate)
    rate.set_defaults(run=_evaluate)


def _evaluate(args: argparse.Namespace, given: list[str]) -> int:
    check_device(args.device)
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
            f"standard deviation {percent(model.accuracy_spread)}",
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
