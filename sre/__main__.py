"""The command line: python -m sre train, sweep, evaluate, check, download, checkpoints."""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from sre.commands import check, evaluate, files, jobs, sweep, train
from sre.errors import SREError
from sre.home import DATA

_STOPPED = "stopped before the end; what takes long goes on when the command is given again"


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
    default_dir = os.environ.get("SRE_DATA_DIR") or DATA
    train.add(commands, default_dir)
    sweep.add(commands, default_dir)
    check.add(commands)
    evaluate.add(commands, default_dir)
    files.add(commands, default_dir)
    jobs.add(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
