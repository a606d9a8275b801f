"""What several commands need."""

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path

import torch

from sre.devices import open_device
from sre.errors import SettingError

_ROOT = Path(__file__).resolve().parents[2]
# Beside the app; where the library alone is installed, in the folder one works in.
CHECKPOINTS_DIR = (_ROOT if (_ROOT / "app.py").is_file() else Path()) / "checkpoints"


def add_data_dir(parser: argparse.ArgumentParser, default_dir: Path | str) -> None:
    """Let a command be told where the MedMNIST files are."""
    parser.add_argument("--data-dir", type=Path, default=default_dir, help="also SRE_DATA_DIR")


def add_device(parser: argparse.ArgumentParser) -> None:
    """Let a command be told where networks run; `check_device` judges what was given."""
    parser.add_argument("--device", default="cpu", help="cpu or cuda")


def check_device(name: str) -> None:
    """Raises: SettingError: this machine has no such device"""
    try:
        open_device(name)
    except (RuntimeError, AssertionError) as error:
        raise SettingError(f"device {name!r} is not on this machine; use --device cpu") from error


def set_threads(count: int) -> None:
    """Let PyTorch use so many threads; 0 leaves it all cores.

    Raises: SettingError: the number is out of range
    """
    if not 0 <= count <= 256:
        raise SettingError(f"threads must be from 0 to 256, got {count}; 0 takes all cores")
    if count > 0:
        torch.set_num_threads(count)


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
