"""Is a recipe better than the usual training? Asked of validation images alone.

Of the two sweeps' cards, in their checkpoints or in what is kept of earlier ones, the figures of
validation images: the usual training (bench/accuracy.toml) and the recipe (bench/recipe.toml), seed
for seed. Test images have no say in what is chosen.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.harness import ROOT, circumstances, write_results
from bench.runs import RUNS_DIR, find_said
from sre.checkpoints import CheckpointCard, load_card
from sre.errors import SREError
from sre.home import SWEEP
from sre.studies.sweep import Sweep, SweepRun
from sre.studies.sweep_file import read_sweep

FIGURES = ("accuracy_at_0", "accuracy_mean", "accuracy_worst", "consistency")
# Each sweep's arms that are compared.
FILES = {
    "accuracy": ("sre", "gmr", "plain", "sre-rotated", "plain-rotated"),
    "recipe": (
        "sre-small", "sre-small-rotated", "sre-balanced", "sre-balanced-rotated", "plain-fast",
        "plain-fast-rotated", "sre-fine", "plain-fine-rotated",
    ),
}  # fmt: skip
NEEDED = {"sre", "sre-small"}  # without which there is nothing to compare


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.recipe", description=__doc__)
    parser.add_argument("--folder", type=Path, default=SWEEP, help="of the sweeps' checkpoints")
    parser.add_argument("--runs", type=Path, default=RUNS_DIR, help="of what is kept of others")
    parser.add_argument(
        "--width", type=int, help="of the networks, in place of the files'; with results of its own"
    )
    args = parser.parse_args(arguments)
    name = "recipe" if args.width is None else f"recipe-w{args.width}"
    found = compare(args.folder, args.runs, width=args.width)
    print(f"wrote {write_results(name, circumstances() | {'split': 'validation'} | found)}")
    return 0


def compare(folder: Path, runs: Path, *, width: int | None = None) -> dict[str, Any]:
    """Collect the cards' figures: by data set and arm, of the seeds that those needed share.

    Raises: SREError: a sweep's file or a kept run is wrong
    """
    cards: dict[str, dict[str, dict[int, CheckpointCard]]] = {}
    titles = {}
    for file, names in FILES.items():
        sweep = read_sweep(ROOT / "bench" / f"{file}.toml", width=width)
        titles |= {name: sweep.arm(name).title for name in names}
        for run in sweep.runs():
            if run.arm in names and (card := _card_of(run, sweep, folder, runs)):
                of_set = cards.setdefault(run.dataset, {})
                of_set.setdefault(run.arm, {})[run.config.seed] = card
    return {
        "arms": titles,
        "datasets": {
            name: {arm: _summary(shared[arm]) for arm in titles if arm in shared}
            for name, of_set in sorted(cards.items())
            if (shared := share_seeds(of_set))
        },
    }


def _card_of(run: SweepRun, sweep: Sweep, folder: Path, runs: Path) -> CheckpointCard | None:
    path = folder / run.file_name
    if path.is_file() and (card := load_card(path)).validation:  # else it is not done yet
        return card
    said = find_said(run, sweep.arm(run.arm), runs)
    return said.card if said else None


Cards = dict[str, dict[int, Any]]  # by arm and seed


def share_seeds(of_set: Cards) -> Cards:
    """Keep the seeds that the needed arms share, and the arms that have all of these.

    Empty where the needed arms have no seed in common.
    """
    if not set(of_set) >= NEEDED:
        return {}
    seeds = sorted(set.intersection(*(set(of_set[arm]) for arm in NEEDED)))
    return {
        arm: {seed: cards[seed] for seed in seeds}
        for arm, cards in of_set.items()
        if seeds and set(cards) >= set(seeds)
    }


def _summary(of_arm: dict[int, CheckpointCard]) -> dict[str, Any]:
    seeds, cards = list(of_arm), list(of_arm.values())
    means = {
        name: sum(float(card.validation[name] or 0) for card in cards) / len(cards)
        for name in FIGURES
    }
    card = cards[0]
    return {
        "seeds": seeds,
        "images": card.validation["images"],
        "parameters": card.parameters,
        "multiply_adds": card.multiply_adds,
        "seconds": [card.seconds for card in cards],
        "best_epochs": [card.best_epoch for card in cards],
        "commands": [card.command for card in cards],
        **means,
    }


if __name__ == "__main__":
    try:
        sys.exit(main())
    except SREError as error:
        sys.exit(f"error: {error}")
