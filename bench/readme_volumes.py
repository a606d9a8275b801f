"""What the README says of volumes, from bench/results/volumes.json alone."""

from typing import Any

from bench.markdown import area, percent, points, shares, table

NONE = "No run on volumes has been made yet.\n"
NOT_MEASURED = ("not measured here", "no networks for volumes have been compared yet")
_SHARES = (
    "accuracy_at_0", "accuracy_turned", "accuracy_worst", "balanced_accuracy_turned", "consistency",
)  # fmt: skip


def volumes(found: dict[str, Any] | None) -> str:
    """Write how the networks for volumes differ, and their table."""
    if found is None:
        return NONE
    rows = [
        [
            arm["title"],
            str(len(arm["seeds"])),
            *(shares(arm[name]) for name in _SHARES),
            *(area(arm[name]) for name in ("auc_at_0", "auc_turned")),
            f"{arm['parameters']:,}",
            f"{arm['multiply_adds'] / 1e6:.1f} M",
            f"{sum(arm['training_s']) / len(arm['training_s']):,.0f} s",
        ]
        for arm in found["arms"].values()
    ]
    head = "Network | Seeds | Upright | Turned | Worst | Balanced, turned | Consistency, turned"
    body = table(
        f"{head} | AUC, upright | AUC, turned | Parameters | Multiply-adds | Training",
        rows,
        right=set(range(1, 12)),
    )
    pairs = [f"{_difference(found, pair)}.\n" for pair in found["pairs"]]
    return "\n".join([*pairs, body, _circumstances(found), ""])


def claim(found: dict[str, Any] | None) -> tuple[str, str]:
    """Hold "better on turned volumes, too" against the differences to the ordinary network."""
    pairs = {pair["second"]: pair for pair in found["pairs"]} if found else {}
    if found is None or "plain" not in pairs:
        return NOT_MEASURED
    gaps = [pairs["plain"][name] for name in ("turned", "auc_turned")]
    verdict = "undecided, on one set"
    if all(gap["low"] > 0 for gap in gaps):
        verdict = "holds, on one set"
    elif any(gap["high"] < 0 for gap in gaps):
        verdict = "does not hold"
    told = "; ".join(_difference(found, pair) for pair in found["pairs"])
    return verdict, f"`{found['dataset']}`: {told}"


def _circumstances(found: dict[str, Any]) -> str:
    settings, arms = found["settings"], found["arms"].values()
    runs = [run for arm in arms for run in arm["runs"]]
    days = sorted({run["created"] for run in runs})
    single = any(len(arm["seeds"]) == 1 for arm in arms)
    return (
        f"Percent of the {found['images']} test volumes of `{found['dataset']}`, of which one "
        f"class has {percent(found['largest_class'])}. Turned: mean over {found['turned_poses']} "
        f"poses, about each axis by steps of {found['step_deg']} degrees without quarter turns; "
        f"worst of {len(found['poses'])} poses with these. Width {settings['width']}, "
        f"{settings['epochs']} epochs; 95 % bootstrap intervals over volumes and seeds"
        + ("; of a single seed over volumes alone" if single else "")
        + f". Trained {' to '.join(dict.fromkeys([days[0], days[-1]]))} on "
        f"{', '.join(sorted({run['processor'] for run in runs}))}. From "
        "`bench/results/volumes.json`."
    )


def _difference(found: dict[str, Any], pair: dict[str, Any]) -> str:
    first, second = (found["arms"][pair[name]]["title"] for name in ("first", "second"))
    turned, upright = (points(pair[name]) for name in ("turned", "upright"))
    gap = pair["auc_turned"]
    return (
        f"{first} less {second}: turned {turned}, upright {upright} points; area under the curve, "
        f"turned, {gap['value']:+.3f} ({gap['low']:+.3f} to {gap['high']:+.3f})"
    )
