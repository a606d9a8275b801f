"""Draw bench/results/*.json into *.svg beside them: python -m bench.plots."""

import json
import sys
from collections.abc import Callable

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.harness import RESULTS_DIR
from bench.readme_tables import SIZES

# Okabe and Ito's colours, which most colour-blind readers can tell apart.
COLOURS = ("#D55E00", "#0072B2", "#009E73", "#E69F00", "#56B4E9", "#CC79A7")


def main() -> int:
    """Draw every result that is there and can be drawn."""
    for name, draw in DRAWINGS.items():
        source = RESULTS_DIR / f"{name}.json"
        if not source.is_file():
            continue
        figure = draw(json.loads(source.read_text(encoding="utf-8")))
        target = source.with_suffix(".svg")
        # Without a date and with fixed names, equal results make equal files.
        figure.savefig(target, metadata={"Date": None}, bbox_inches="tight")
        print(f"wrote {target}")
    return 0


def draw_networks(result: dict) -> Figure:
    """Bars of time for one image of a batch, a group for each batch size, on a log scale."""
    figure = Figure(figsize=(8, 4))
    axes: Axes = figure.subplots()
    names = list(result["rows"][0]["seconds"])
    width = 0.8 / len(names)
    for i, name in enumerate(names):
        found = [row["seconds"][name] for row in result["rows"]]
        sizes = [row["batch"] for row in result["rows"]]
        times = [1000 * f["median"] / b for f, b in zip(found, sizes, strict=True)]
        low = [1000 * (f["median"] - f["q1"]) / b for f, b in zip(found, sizes, strict=True)]
        high = [1000 * (f["q3"] - f["median"]) / b for f, b in zip(found, sizes, strict=True)]
        places = [group + i * width for group in range(len(sizes))]
        axes.bar(
            places, times, width, color=COLOURS[i], label=result["titles"][name],
            yerr=[low, high], error_kw={"linewidth": 0.8},
        )  # fmt: skip
    axes.set_yscale("log")
    axes.set_xticks(
        [g + 0.4 - width / 2 for g in range(len(result["rows"]))],
        [f"batch {row['batch']}" for row in result["rows"]],
    )
    axes.set_ylabel("ms an image")
    axes.legend(fontsize=7, ncols=2, loc="upper center", bbox_to_anchor=(0.5, 1.25))
    return figure


def draw_scaling(result: dict) -> Figure:
    """Time against each size, both ways, on log scales."""
    figure = Figure(figsize=(10, 2.8), layout="constrained")
    for axes, (name, sweep) in zip(
        figure.subplots(1, len(result["sweeps"])), result["sweeps"].items(), strict=True
    ):
        sizes = [row[name] for row in sweep["rows"]]
        for colour, (way, title) in zip(
            COLOURS, {"bands": "this layer", "dense": "dense kernel"}.items(), strict=False
        ):
            times = [1000 * row["seconds"][way]["median"] for row in sweep["rows"]]
            label = f"{title}: exponent {sweep['exponents'][way]:.2f}"
            axes.loglog(sizes, times, "o-", color=colour, label=label, markersize=3)
        axes.set_xticks(sizes, [str(size) for size in sizes], minor=False)
        axes.minorticks_off()
        axes.set_xlabel(SIZES[name])
        axes.legend(fontsize=6)
    figure.axes[0].set_ylabel("ms")
    return figure


DRAWINGS: dict[str, Callable[[dict], Figure]] = {
    "forward": draw_networks,
    "train_step": draw_networks,
    "scaling": draw_scaling,
}


if __name__ == "__main__":
    sys.exit(main())
