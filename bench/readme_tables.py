"""Write the tables of README.md from the data sets, checkpoint cards and results they come from."""

import argparse
import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.markdown import percent, table
from bench.readme_accuracy import claims, results
from bench.readme_fine import fine
from bench.readme_gpu import gpu, gpu_training
from bench.readme_levers import levers
from bench.readme_reasons import reasons
from bench.readme_recipe import recipe
from bench.readme_volumes import volumes
from bench.readme_widths import widths
from sre.checkpoints import CheckpointCard, load_card
from sre.data.table import DATASETS, DatasetEntry
from sre.models import find_model
from sre.studies.naming import SIZE_PX

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
CHECKPOINTS_DIR = ROOT / "checkpoints"
RESULTS_DIR = ROOT / "bench" / "results"

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
    return table("Name | Task | Classes | Images | Sides, px | Licence", rows, right={2, 3})


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
    # Those of the repository alone: one's own training must not make the README outdated.
    cards = [load_card(CHECKPOINTS_DIR / name) for name in _indexed()]
    cards = [card for card in cards if card.arm in ARMS]
    if not cards:
        return "No checkpoints are there yet.\n"
    order = {name: place for place, name in enumerate(DATASETS)}
    cards.sort(
        key=lambda card: (
            order[card.dataset], card.side_px, card.width, list(ARMS).index(card.arm)
        )
    )  # fmt: skip
    header = (
        "Data set | Network | Parameters | Multiply-adds | Upright | Mean | Worst | Consistency"
    )
    body = table(
        f"{header} | AUC", [_checkpoint_row(card) for card in cards], right=set(range(2, 9))
    )
    return f"{body}\n{_standings([card for card in cards if card.side_px == SIZE_PX])}\n"


def _indexed() -> list[str]:
    path = CHECKPOINTS_DIR / "index.json"
    if not path.is_file():
        return []
    return [row["file"] for row in json.loads(path.read_text(encoding="utf-8"))]


def _checkpoint_row(card: CheckpointCard) -> list[str]:
    test = card.test
    auc = test.get("auc_at_0")
    return [
        f"`{card.dataset}`",
        ARMS[card.arm] + (f", at {card.side_px} px" if card.side_px != SIZE_PX else ""),
        f"{card.parameters:,}",
        f"{card.multiply_adds / 1e6:.1f} M",
        *(percent(test[name]) for name in ("accuracy_at_0", "accuracy_mean", "accuracy_worst")),
        percent(test["consistency"]),
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
    """What the committed results say, medians with quartiles, and on what machine."""
    orbit, start = _results("orbit"), _results("start")
    if orbit is None or start is None:
        return "Not measured yet; `make bench` does.\n"
    widths, browser = orbit["rows"], orbit["browser"]
    lines = {
        "Orbit from image to bundle": [_seconds(row["uncached_s"]) for row in widths],
        "Its networks alone": [_seconds(row["networks_s"]) for row in widths],
        "The same with dense kernels": [_seconds(row["dense_networks_s"]) for row in widths],
        "The same by single angles": [_seconds(row["single_calls_s"]) for row in widths],
        "Single angles over all at once": [
            _spread(row["single_over_batched"], "x", 1) for row in widths
        ],
        "Peak memory": [f"{row['peak_memory_mb']:,} MB" for row in widths],
        "Largest bundle": [f"{row['bundle_bytes_max'] / 1000:.0f} KB" for row in widths],
    }
    header = " | ".join(f"Width {row['width']}" for row in widths)
    orbits = table(
        f"Three networks, 72 angles | {header}",
        [[name, *cells] for name, cells in lines.items()],
        right=set(range(1, len(widths) + 1)),
    )
    page = [
        ["Click to paint, nothing cached", _spread(browser["click_to_paint_uncached_ms"], "ms")],
        ["Click to paint, cached", _spread(browser["click_to_paint_cached_ms"], "ms")],
        ["Positions painted while dragging", f"{browser['drag_painted_per_s']:.0f} a second"],
        ["Requests while dragging", str(browser["drag_requests"])],
        ["From `python app.py` to an answer", _seconds(start["answers_s"])],
        ["From `python app.py` to the first orbit", _seconds(start["first_orbit_s"])],
    ]
    page_table = table("The page | Shipped networks", page, right={1})
    return "\n".join((orbits, page_table, _machine(orbit, "orbit", "start")))


def networks() -> str:
    """Times and memory of whole networks, and how they compare, wins and losses alike."""
    forward, step = _results("forward"), _results("train_step")
    if forward is None or step is None:
        return "Not measured yet; `make bench` does.\n"
    names = list(forward["parameters"])
    titles = [forward["titles"][name] for name in names]
    rows = [["Parameters", *(f"{forward['parameters'][name]:,}" for name in names)]]
    rows += [_network_row(f"Forward, batch {row['batch']}", row, names) for row in forward["rows"]]
    rows += [
        _network_row(f"Training step, batch {row['batch']}", row, names) for row in step["rows"]
    ]
    for title, result in (("Forward", forward), ("Training step", step)):
        memory = result["peak_memory_mb"]
        cells = (f"{memory[name]:,.0f} MB" for name in names)
        rows.append([f"{title}, peak memory at batch {memory['batch']}", *cells])
    times = table(f"32 px, width 64 | {' | '.join(titles)}", rows, right=set(range(1, 9)))
    ratios = [
        [
            f"{title}, batch {row['batch']}",
            _spread(row["authors_over_ours"], "x", 1),
            _spread(row["resnet18_over_ours"], "x", 2),
        ]
        for title, result in (("Forward", forward), ("Training step", step))
        for row in result["rows"]
    ]
    compared = table(
        "This library is faster than | sre-conv 1.0.2 | ResNet-18, eager or compiled",
        ratios,
        right={1, 2},
    )
    return "\n".join((times, compared, _machine(forward, "forward", "train_step")))


def _network_row(title: str, row: dict, names: list[str]) -> list[str]:
    medians = [row["seconds"][name]["median"] * 1000 for name in names]
    return [title, *(f"{median:,.{0 if median >= 100 else 1}f} ms" for median in medians)]


def scaling() -> str:
    """How the cost of a layer grows, by band sums and densely."""
    found = _results("scaling")
    if found is None:
        return "Not measured yet; `make bench` does.\n"
    rows = []
    for name, sweep in found["sweeps"].items():
        first, last = sweep["rows"][0], sweep["rows"][-1]
        rows.append(
            [
                f"{SIZES[name]}, {first[name]} to {last[name]}",
                *(f"{sweep['exponents'][way]:.2f}" for way in ("bands", "dense")),
                *(_spread(row["dense_over_bands"], "x", 1) for row in (first, last)),
            ]
        )
    header = "Time grows with | Exponent, this layer | Exponent, dense kernel"
    body = table(f"{header} | Faster at the first | Faster at the last", rows, right={1, 2, 3, 4})
    return f"{body}\n{_machine(found, 'scaling')}"


def ways() -> str:
    """Whether layers choose the quicker of the two fast ways."""
    found = _results("ways")
    if found is None:
        return "Not measured yet; `make bench` does.\n"
    rows = []
    for task, choice in found["choice"].items():
        costs = (f"{100 * (choice[f'{name}over_best'] - 1):.0f} %" for name in _CHOICES)
        ratios = [(row[task]["ratio"]["median"], row) for row in found["rows"]]
        ends = [_layer(*pick(ratios, key=lambda pair: pair[0])) for pick in (max, min)]
        rows.append([task.capitalize(), f"{choice['right']} of {choice['layers']}", *costs, *ends])
    header = "Task | The quicker chosen | The choice costs | Sums alone would | Spectra alone would"
    body = table(
        f"{header} | Spectra at their best, over sums | At their worst", rows, right={1, 2, 3, 4}
    )
    return f"{body}\n{_machine(found, 'ways')}"


_CHOICES = ("", "bands_", "spectra_")


def _layer(ratio: float, row: dict) -> str:
    shape = f"{row['channels']} to {row['out_channels']} channels, {row['side']} px"
    return f"{ratio:.1f} x ({shape}, kernel side {row['kernel']}, batch {row['batch']})"


SIZES = {
    "kernel": "kernel side", "side": "image side", "width": "channels", "batch": "batch",
    "solid_kernel": "kernel side, volumes", "solid_side": "side of volumes",
}  # fmt: skip


def _results(name: str) -> dict | None:
    path = RESULTS_DIR / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _seconds(spread: dict[str, float]) -> str:
    return _spread(spread, "s", 2)


def _spread(spread: dict[str, float], unit: str, digits: int = 0) -> str:
    median, low, high = (f"{spread[name]:.{digits}f}" for name in ("median", "q1", "q3"))
    return f"{median} {unit} ({low} to {high})"


def _machine(result: dict, *files: str) -> str:
    where = f"{result['processor']}, {result['threads']} threads"
    listed = " and ".join(f"`bench/results/{name}.json`" for name in files)
    return (
        f"Medians and quartiles. {where}, PyTorch {result['versions']['torch']}, {result['date']}; "
        f"from {listed}.\n"
    )


def training() -> str:
    """What a short run reaches, and how long an evaluation takes."""
    found, evaluated = _results("training"), _results("evaluate")
    if found is None or evaluated is None:
        return "Not measured yet; `make bench` does.\n"
    rows = []
    for name, run in found["runs"].items():
        reached = run["asked_reached_s"]
        rows.append(
            [
                find_model(name).title,
                str(len(run["epochs"])),
                f"{run['took_s']:.0f} s",
                *(percent(run[f"val_{figure}"]) for figure in ("accuracy", "turned_accuracy")),
                "not reached" if reached is None else f"{reached:.0f} s",
            ]
        )
    asked = f"{found['asked_accuracy']:.0%}".replace("%", " %")
    header = "Network | Epochs | Training | Validation, upright | Turned"
    share, whole = found["step"]["augmentation_share"], evaluated["whole"]
    return (
        table(f"{header} | {asked} after", rows, right={1, 2, 3, 4, 5})
        + f"\nAugmenting its images takes {percent(share['median'])} % ({percent(share['q1'])} to "
        f"{percent(share['q3'])}) of a training step of {found['step']['batch']} images. An "
        f"evaluation of {whole['images']:,} images by {whole['networks']} networks at "
        f"{whole['angles']} angles takes {whole['took_s']:.0f} s "
        f"(`{evaluated['dataset']}`, {evaluated['date']}).\n\n"
        + _machine(found, "training", "evaluate")
    )


def family() -> str:
    """One layer of each kind."""
    found = _results("family")
    if found is None:
        return "Not measured yet; `make bench` does.\n"
    labels = list(found["rows"][0]["errors"])
    rows = []
    for row in found["rows"]:
        ms = {name: row["seconds"][name] * 1000 for name in ("median", "q1", "q3")}
        errors = (f"{row['errors'][label]['median']:.1g}" for label in labels)
        cost = [f"{row['parameters']:,}", f"{row['multiply_adds'] / 1e6:,.1f} M"]
        rows.append([row["title"], *cost, _spread(ms, "ms"), *errors])
    floor = (
        f"{found['interpolation'][label]['median']:.1g}" if label in found["interpolation"] else "0"
        for label in labels
    )
    rows.append(["Turning there and back alone", "", "", "", *floor])
    titles = " | ".join(f"Error, {label}" for label in labels)
    header = f"{found['channels']} channels, {found['side']} px, batch {found['batch']}"
    body = table(
        f"{header} | Parameters | Multiply-adds | Forward | {titles}", rows, right=set(range(1, 9))
    )
    return f"{body}\n{_machine(found, 'family')}"


TABLES: dict[str, Callable[[], str]] = {
    "datasets": datasets,
    "checkpoints": checkpoints,
    "results": lambda: results(_results("accuracy")),
    "widths": lambda: widths(
        _results("accuracy"), _results("accuracy-w16"), _results("accuracy-w64")
    ),
    "claims": lambda: claims(
        _results("accuracy"),
        _results("forward"),
        _results("train_step"),
        _results("accuracy-w16"),
        _results("volumes"),
        _results("accuracy-w64"),
    ),
    "volumes": lambda: volumes(_results("volumes")),
    "levers": lambda: levers(_results("levers")),
    "fine": lambda: fine(_results("accuracy-fine")),
    "reasons": lambda: reasons(_results("reasons")),
    "recipe": lambda: recipe(_results("recipe-w16"), _results("accuracy-w16")),
    "speed": speed,
    "training": training,
    "networks": networks,
    "scaling": scaling,
    "ways": ways,
    "family": family,
    "gpu": lambda: gpu(_results("gpu")),
    "gpu_training": lambda: gpu_training(_results("gpu_training"), _results("evaluate-gpu")),
}


if __name__ == "__main__":
    sys.exit(main())
