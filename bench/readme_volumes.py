"""What the README says of volumes, from bench/results/volumes.json alone."""

from typing import Any

from bench.markdown import percent, table

NONE = "No run on volumes has been made yet.\n"
NOT_MEASURED = ("not measured here", "networks for volumes were not trained here")


def volumes(found: dict[str, Any] | None) -> str:
    """Write the table of the networks for volumes, and how they differ."""
    if found is None:
        return NONE
    rows = [
        [
            arm["title"],
            str(len(arm["seeds"])),
            *(_figure(arm[name]) for name in FIGURES),
            f"{arm['parameters']:,}",
            f"{arm['multiply_adds'] / 1e6:.1f} M",
            f"{sum(arm['training_s']) / len(arm['training_s']):,.0f} s",
        ]
        for arm in found["arms"].values()
    ]
    head = "Network | Seeds | Upright | Mean | Worst | Consistency | Parameters | Multiply-adds"
    settings, runs = found["settings"], [r for a in found["arms"].values() for r in a["runs"]]
    days = sorted({run["created"] for run in runs})
    said = (
        f"Percent of the {found['images']} test volumes of `{found['dataset']}`, upright and over "
        f"{found['poses']} poses: that, and turned by steps of {found['step_deg']} degrees about "
        f"each axis. Width {settings['width']}, {settings['epochs']} epochs; 95 % bootstrap "
        f"intervals. Trained {' to '.join(dict.fromkeys([days[0], days[-1]]))} on "
        f"{found['processor']}, beside other work. From `bench/results/volumes.json`."
    )
    pairs = [f"{_difference(found, pair)}." for pair in found["pairs"]]
    return (
        "\n".join([table(f"{head} | Training", rows, right=set(range(1, 9))), said, "", *pairs])
        + "\n"
    )


FIGURES = ("accuracy_at_0", "accuracy_mean", "accuracy_worst", "consistency")


def claim(found: dict[str, Any] | None) -> tuple[str, str]:
    """Hold "better on turned volumes, too" against the difference to the ordinary network."""
    if found is None:
        return NOT_MEASURED
    pairs = {pair["second"]: pair for pair in found["pairs"]}
    if "plain" not in pairs:
        return NOT_MEASURED
    gap = pairs["plain"]["mean"]
    verdict = "does not hold"
    if gap["low"] > 0:
        verdict = "holds, on one set"
    elif gap["high"] >= 0:
        verdict = "undecided, on one set"
    told = "; ".join(_difference(found, pair) for pair in found["pairs"])
    return verdict, f"`{found['dataset']}`: {told}"


def _difference(found: dict[str, Any], pair: dict[str, Any]) -> str:
    first, second = (found["arms"][pair[name]]["title"] for name in ("first", "second"))
    mean, upright = (_points(pair[name]) for name in ("mean", "upright"))
    return f"{first} less {second}: over all poses {mean}, upright {upright} points"


def _figure(found: dict[str, float]) -> str:
    return f"{percent(found['value'])} ({percent(found['low'])} to {percent(found['high'])})"


def _points(found: dict[str, float]) -> str:
    value, low, high = (f"{100 * found[name]:+z.1f}" for name in ("value", "low", "high"))
    return f"{value} ({low} to {high})"
