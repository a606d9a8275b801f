"""What the README says of the recipe for SRE, from bench/results/recipe.json alone."""

from typing import Any

from bench.markdown import percent, table

NONE = "No run of the recipe has been made yet.\n"


def recipe(found: dict[str, Any] | None) -> str:
    """A row a data set and arm, and in words what balancing changed."""
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
    return table(header + "Parameters", rows, right={2, 3, 4, 5, 6, 7}) + _words(found["datasets"])


def _words(datasets: dict[str, Any]) -> str:
    told = []
    for other, words in (("sre", "the usual training"), ("plain-fast", "the CNN at the same rate")):
        found = {name: _gap(of_set, other) for name, of_set in datasets.items() if other in of_set}
        if not found:
            continue
        gaps = ", ".join(f"`{name}` {100 * gap:+z.1f}" for name, gap in found.items())
        told.append(
            f"Against {words}, balanced SRE is more accurate over all angles on "
            f"{sum(gap > 0 for gap in found.values())} of {len(found)} validation sets (points: "
            f"{gaps})."
        )
    return "\n" + "\n".join(told) + "\n"


def _gap(of_set: dict[str, Any], other: str) -> float:
    return of_set["sre-balanced"]["accuracy_mean"] - of_set[other]["accuracy_mean"]
