"""python -m sre sweep."""

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from sre.commands.common import add_data_dir, add_device, check_device, set_threads
from sre.errors import SettingError
from sre.home import SWEEP
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
from sre.studies.train_run import EpochDone


def add(commands: Any, default_dir: Path | str) -> None:
    """Describe the command."""
    sweep = commands.add_parser(
        "sweep", help="train and evaluate all models that a file names, on all its data sets"
    )
    sweep.add_argument("file", metavar="FILE.toml", type=Path, help="such as bench/accuracy.toml")
    sweep.add_argument(
        "--list", action="store_true", help="only print the runs, and which are done"
    )
    sweep.add_argument("--datasets", nargs="+", metavar="NAME", help="only these of the file's")
    sweep.add_argument("--seeds", type=int, nargs="+", metavar="N", help="only these of the file's")
    sweep.add_argument("--width", type=int, help="of the networks, in place of the file's")
    sweep.add_argument("--address", help="a cluster of Ray's; left out: this machine")
    sweep.add_argument("--no-ray", action="store_true", help="one run after the other, without Ray")
    sweep.add_argument(
        "--output", type=Path, default=SWEEP,
        help="folder of the checkpoints; runs whose checkpoint is there are skipped",
    )  # fmt: skip
    add_data_dir(sweep, default_dir)
    add_device(sweep)
    sweep.add_argument(
        "--threads", type=int, default=0,
        help="CPU threads of a run, up to 256; 0 takes one with Ray, and all cores without",
    )  # fmt: skip
    sweep.set_defaults(run=_sweep)


def _sweep(args: argparse.Namespace, given: list[str]) -> int:
    sweep = read_sweep(args.file, width=args.width)
    runs = sweep.part(datasets=args.datasets, seeds=args.seeds).runs()
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
        check_device(args.device)
    set_threads(args.threads)
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
