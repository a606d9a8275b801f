"""What the README says of the recipe for SRE: of validation images, then of test images.

From bench/results/recipe.json and bench/results/accuracy.json alone.
"""

from typing import Any

from bench.markdown import percent, table
from bench.readme_accuracy import ASKED_OF_RECIPE, Comparison, arms_table, paragraphs

RIVALS = {
    "sre": "the usual training",
    "sre-balanced": "balancing with the usual kernels",
    "plain-fast": "the CNN at the same rate",
    "plain-fast-rotated": "that CNN trained turned",
}
NONE = "No run of the recipe has been made yet.\n"


def recipe(found: dict[str, Any] | None, tested: dict[str, Any] | None = None) -> str:
    """A row a data set and arm, and in words what the recipe changed; then of the test images."""
    if found is None or not found["datasets"]:
        return NONE
    rows = [
        [
            f"`{name}`" if number == 0 else "",
            found["arms"][arm],
            str(len(figures["seeds"])),
            percent(figures["accuracy_at_0"]),
            percent(figures["accuracy_mean"]),
            percent(figures["accuracy_worst"]),
            percent(figures["consistency"]),
            f"{figures['parameters']:,}",
        ]
        for name, of_set in found["datasets"].items()
        for number, (arm, figures) in enumerate(of_set.items())
    ]
    header = "Data set | Network | Seeds | Upright | Mean of 12 angles | Worst | Consistency | "
    return (
        table(header + "Parameters", rows, right={2, 3, 4, 5, 6, 7})
        + _words(found["datasets"])
        + _tests(tested)
    )


def _words(datasets: dict[str, Any]) -> str:
    told = []
    for other, words in RIVALS.items():
        found = {name: _gap(of_set, other) for name, of_set in datasets.items() if other in of_set}
        if not found:
            continue
        gaps = ", ".join(f"`{name}` {100 * gap:+z.1f}" for name, gap in found.items())
        told.append(
            f"Against {words}, SRE by the recipe is more accurate over all angles on "
            f"{sum(gap > 0 for gap in found.values())} of {len(found)} validation sets (points: "
            f"{gaps})."
        )
    return "\n" + "\n".join(told) + "\n"


def _tests(tested: dict[str, Any] | None) -> str:
    rows = arms_table(tested, "recipe") if tested else ""
    if tested is None or not rows:
        return ""
    told = [f"{text}\n" for text in paragraphs(Comparison(tested), ASKED_OF_RECIPE)]
    return "\n".join(["\nOn the test images, as in the first table:\n", rows, *told])


def _gap(of_set: dict[str, Any], other: str) -> float:
    return of_set["sre-small"]["accuracy_mean"] - of_set[other]["accuracy_mean"]
