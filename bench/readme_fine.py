"""What the README says of the fine recipe, from bench/results/accuracy-fine.json alone."""

from typing import Any

from bench.markdown import percent, span
from bench.readme_accuracy import Comparison, arms_table, circumstances, paragraphs

SRE, RIVALS = "fine-sre-enlarged-blurred", ("fine-augmented", "fine-augmented-blurred")
ASKED = (
    ("Is it above the CNN trained turned?", SRE, RIVALS[0], "mean"),
    ("And with anti-aliased pools in the CNN, too?", SRE, RIVALS[1], "mean"),
    ("Upright?", SRE, RIVALS[0], "upright"),
)
NONE = "No run of the fine recipe has been made yet.\n"


def fine(found: dict[str, Any] | None) -> str:
    """Write the table of the fine recipe and its rivals, on test images, and what it answers."""
    if found is None:
        return NONE
    told = [f"{text}\n" for text in (*paragraphs(Comparison(found), ASKED), _costs(found))]
    return "\n".join([*told, arms_table(found, "fine"), circumstances(found, "accuracy-fine")])


def _costs(found: dict[str, Any]) -> str:
    """Tell what it spends and how consistent it is, beside the CNN trained turned."""
    comparison = Comparison(found)
    ours, theirs = comparison.arms.get(SRE, ""), comparison.arms.get(RIVALS[0], "")
    both = {
        dataset: (one["arms"][ours], one["arms"][theirs])
        for dataset, one in found["datasets"].items()
        if {ours, theirs} <= set(one["arms"])
    }
    if not both:
        return "No data set has both networks yet."
    stays = {dataset: sre["consistency"]["value"] for dataset, (sre, _) in both.items()}
    steady = sum(value >= 0.99 for value in stays.values())
    told = (
        f"**At what cost?** {_ratio(both, 'parameters')} of the parameters of the CNN trained "
        f"turned and {_ratio(both, 'multiply_adds')} of its multiply-adds; its consistency is 99 % "
        f"or more on {steady} of {len(stays)} ("
        + ", ".join(f"`{dataset}` {percent(value)}" for dataset, value in stays.items())
        + ")"
    )
    taken = (found["time"] or {}).get("seconds", {})
    ratios = [
        taken[dataset][ours]["median"] / taken[dataset][theirs]["median"]
        for dataset in both
        if {ours, theirs} <= set(taken.get(dataset, {}))
    ]
    if not ratios:
        return f"{told}."
    return f"{told}; an image takes {span(ratios, '.1f')} times as long."


def _ratio(both: dict[str, tuple[dict[str, Any], dict[str, Any]]], name: str) -> str:
    return f"{span([100 * sre[name] / cnn[name] for sre, cnn in both.values()], '.0f')} %"
