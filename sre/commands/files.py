"""python -m sre download, checkpoints."""

import argparse
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from sre.checkpoints import CheckpointCard, list_checkpoints
from sre.commands.common import CHECKPOINTS_DIR, add_data_dir
from sre.data.download import download
from sre.data.table import find_dataset
from sre.data.transfer import Progress
from sre.errors import CheckpointError


def add(commands: Any, default_dir: Path | str) -> None:
    """Describe the two commands."""
    fetch = commands.add_parser("download", help="fetch a MedMNIST set, whole and checked")
    fetch.add_argument("dataset", metavar="DATASET", help="its name in lower case")
    fetch.add_argument("--size", type=int, default=28, help="image side in px: 28, 64, 128 or 224")
    add_data_dir(fetch, default_dir)
    fetch.set_defaults(run=_download)

    listing = commands.add_parser("checkpoints", help="list checkpoints and their figures")
    listing.add_argument("--folder", type=Path, default=CHECKPOINTS_DIR)
    listing.add_argument(
        "--index", action="store_true", help="also write index.json: file, sha256, figures, command"
    )
    listing.set_defaults(run=_checkpoints)


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
