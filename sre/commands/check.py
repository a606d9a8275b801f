"""python -m sre check."""

import argparse
import math
import shutil
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from sre.checkpoints import load_checkpoint
from sre.errors import SettingError
from sre.inspection import check_equivariance, example_input
from sre.models import MODELS, build_model, find_model
from sre.report import LEGEND

CHECK_CHANNELS, CHECK_MAX_ANGLES = (1, 64), 6
CHECK_SIDES_PX = MappingProxyType({2: (8, 256), 3: (8, 64)})  # of images, of volumes


def add(commands: Any) -> None:
    """Describe the command."""
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
