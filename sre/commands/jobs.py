"""What the app starts: python -m sre work, estimate."""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sre.commands.common import check_device
from sre.errors import SettingError
from sre.studies.job_settings import JobSettings
from sre.studies.plan import estimate_job
from sre.studies.worker import lower_priority, work


def add(commands: Any) -> None:
    """Describe the two commands."""
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


def _work(args: argparse.Namespace, given: list[str]) -> int:
    lower_priority()
    return work(args.folder, data_dir=args.data_dir, output=args.output, device=args.device)


def _estimate(args: argparse.Namespace, given: list[str]) -> int:
    lower_priority()
    lower_priority()
    check_device(args.device)
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
