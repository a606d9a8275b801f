"""Write the tables of README.md from the data sets, checkpoint cards and results they come from."""

import argparse
import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from sre.checkpoints import CheckpointCard, list_checkpoints
from sre.data.table import DATASETS, DatasetEntry

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
CHECKPOINTS_DIR = ROOT / "checkpoints"
RESULTS = ROOT / "bench" / "results" / "orbit.json"

ARMS = {"sre": "SRE", "plain": "CNN", "augmented": "CNN, trained turned"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Rewrite the README, or with --check only tell whether it is up to date."""
    parser = argparse.ArgumentParser(prog="python -m bench.readme_tables", description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if outdated")
    check = parser.parse_args(arguments).check
    text = README.read_text(encoding="utf-8")
    new = with_tables(text)
    if new == text:
        print("README.md is up to date")
        return 0
    if check:
        print("README.md is outdated; run make readme", file=sys.stderr)
        return 1
    README.write_text(new, encoding="utf-8")
    print("README.md written")
    return 0


def with_tables(text: str) -> str:
    """Fill each place between ``<!-- NAME -->`` and ``<!-- /NAME -->`` anew."""
    for name, make in TABLES.items():
        place = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        if not place.search(text):
            raise ValueError(f"README.md has no place <!-- {name} --> ... <!-- /{name} -->; add it")
        body = make().replace("\\", r"\\")
        text = place.sub(rf"\g<1>{body}\g<2>", text)
    return text


def datasets() -> str:
    """One row a data set, as the app's own table has them."""
    rows = [_dataset_row(entry) for entry in DATASETS.values()]
    return _table("Name | Task | Classes | Images | Sides, px | Licence", rows, right={2, 3})


def _dataset_row(entry: DatasetEntry) -> list[str]:
    sides = ", ".join(f"{side}³" if entry.dimensions == 3 else str(side) for side in entry.sizes)
    colour = " RGB" if entry.channels == 3 else ""
    return [
        f"`{entry.name}`",
        entry.task,
        str(len(entry.classes)),
        f"{sum(entry.splits.values()):,}",
        sides + colour,
        entry.licence,
    ]


def checkpoints() -> str:
    """One row a checkpoint of the app's comparison, and one sentence on who is ahead."""
    cards = [card for card in list_checkpoints(CHECKPOINTS_DIR).values() if card.arm in ARMS]
    if not cards:
        return "No checkpoints are there yet.\n"
    order = {name: place for place, name in enumerate(DATASETS)}
    cards.sort(key=lambda card: (order[card.dataset], card.width, list(ARMS).index(card.arm)))
    header = (
        "Data set | Network | Parameters | Multiply-adds | Upright | Mean | Worst | Consistency"
    )
    table = _table(
        f"{header} | AUC", [_checkpoint_row(card) for card in cards], right=set(range(2, 9))
    )
    return f"{table}\n{_standings(cards)}\n"


def _checkpoint_row(card: CheckpointCard) -> list[str]:
    test = card.test
    auc = test.get("auc_at_0")
    return [
        f"`{card.dataset}`",
        ARMS[card.arm],
        f"{card.parameters:,}",
        f"{card.multiply_adds / 1e6:.1f} M",
        *(_percent(test[name]) for name in ("accuracy_at_0", "accuracy_mean", "accuracy_worst")),
        _percent(test["consistency"]),
        "" if auc is None else f"{auc:.3f}",
    ]


def _standings(cards: list[CheckpointCard]) -> str:
    """Say where SRE is behind, upright and over all angles: the losses are told like the wins."""
    by_arm = {(card.dataset, card.arm): card.test for card in cards}
    names = [name for name in DATASETS if all((name, arm) in by_arm for arm in ARMS)]

    def behind(figure: str, rival: str) -> str:
        lost = [n for n in names if by_arm[n, "sre"][figure] < by_arm[n, rival][figure]]
        listed = f" ({', '.join(f'`{name}`' for name in lost)})" if lost else ""
        return f"{len(lost)} of {len(names)} data sets{listed}"

    return (
        f"Upright, SRE is behind the CNN on {behind('accuracy_at_0', 'plain')}. Over all angles it "
        f"is behind the CNN on {behind('accuracy_mean', 'plain')}, and behind the CNN trained with "
        f"random rotations on {behind('accuracy_mean', 'augmented')}."
    )


def speed() -> str:
    """The rows of bench/results/orbit.json."""
    if not RESULTS.is_file():
        return "Not measured yet.\n"
    return json.loads(RESULTS.read_text(encoding="utf-8"))["note"] + "\n"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _table(header: str, rows: list[list[str]], *, right: set[int]) -> str:
    columns = header.split(" | ")
    rule = ["---:" if number in right else "---" for number in range(len(columns))]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (columns, rule, *rows))


TABLES: dict[str, Callable[[], str]] = {
    "datasets": datasets,
    "checkpoints": checkpoints,
    "speed": speed,
}


if __name__ == "__main__":
    sys.exit(main())
