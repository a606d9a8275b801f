"""What the README says of the recipe for SRE: of validation images, then of test images.

From bench/results/recipe-w16.json and bench/results/accuracy-w16.json alone.
"""

from typing import Any

from bench.markdown import percent, table
from bench.readme_accuracy import ASKED_OF_RECIPE, Comparison, arms_table, paragraphs

# Of each two arms: how the first is called, and how the second.
PAIRS = (
    ("sre-small", "sre", "SRE by the recipe", "the usual training"),
    ("sre-small", "sre-balanced", "SRE by the recipe", "balancing with the usual kernels"),
    ("sre-small", "plain-fast", "SRE by the recipe", "the CNN at the same rate"),
    ("sre-small", "plain-fast-rotated", "SRE by the recipe", "that CNN trained turned"),
    ("sre-fine", "sre-small", "SRE by the recipe on enlarged images", "SRE by the recipe"),
    (
        "sre-fine", "plain-fast-rotated",
        "SRE by the recipe on enlarged images", "the CNN trained turned on images as they are",
    ),
    (
        "sre-fine", "plain-fine-rotated",
        "SRE by the recipe on enlarged images", "the CNN trained turned on enlarged ones",
    ),
)  # fmt: skip
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
    body = table(header + "Parameters", rows, right={2, 3, 4, 5, 6, 7})
    return f"{_words(found['datasets'])}\n{body}{_tests(tested)}"


def _words(datasets: dict[str, Any]) -> str:
    told = []
    for first, second, ours, theirs in PAIRS:
        found = _gaps(datasets, first, second, "accuracy_mean")
        if not found:
            continue
        told.append(
            f"Against {theirs}, {ours} is more accurate over all angles on "
            f"{sum(gap > 0 for gap in found.values())} of {len(found)} validation sets (points: "
            f"{_points(found)})."
        )
    if steadier := _gaps(datasets, "sre-fine", "sre-small", "consistency"):
        least = min(datasets[name]["sre-fine"]["consistency"] for name in steadier)
        told.append(
            "On enlarged images its answers are more consistent on "
            f"{sum(gap > 0 for gap in steadier.values())} of {len(steadier)} (points: "
            f"{_points(steadier)}), at {percent(least)} % or more."
        )
    return "\n".join(told) + "\n"


def _gaps(datasets: dict[str, Any], first: str, second: str, figure: str) -> dict[str, float]:
    return {
        name: of_set[first][figure] - of_set[second][figure]
        for name, of_set in datasets.items()
        if {first, second} <= set(of_set)
    }


def _points(gaps: dict[str, float]) -> str:
    return ", ".join(f"`{name}` {100 * gap:+z.1f}" for name, gap in gaps.items())


def _tests(tested: dict[str, Any] | None) -> str:
    rows = arms_table(tested, "recipe") if tested else ""
    if tested is None or not rows:
        return ""
    told = [f"{text}\n" for text in paragraphs(Comparison(tested), ASKED_OF_RECIPE)]
    return "\n".join(["\nOn the test images, as in the first table:\n", *told, rows])
