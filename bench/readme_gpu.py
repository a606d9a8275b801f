"""What the README says of speed on a GPU, from the results that were made on one."""

import itertools
from typing import Any

from bench.markdown import table

NONE = "Not measured yet: it takes a machine with a GPU.\n"
PRECISIONS = {"float32": "single precision", "tf32": "TF32", "bfloat16": "bfloat16"}
GRAPH = ", CUDA graph"
ASKED = 2.0  # times as fast as the authors' package
Results = dict[str, Any]


def gpu(found: Results | None) -> str:
    """Passes and training steps, and of what they fall short."""
    if found is None:
        return NONE
    rows, ratios = [], []
    for row in found["rows"]:
        for ending in ("", GRAPH):
            seconds = {n: row["seconds"].get(n + ending) for n in found["titles"]}
            if not all(seconds.values()):
                continue
            suffix = "_as_graphs" if ending else ""
            pair = [row[f"{name}_over_ours{suffix}"]["median"] for name in ("authors", "resnet18")]
            title = f"{row['task'].capitalize()}, {PRECISIONS[row['precision']]}{ending}"
            ratios.append((row, pair))
            rows.append(
                [
                    title,
                    f"{row['batch']:,}",
                    *(_ms(one["median"]) for one in seconds.values()),
                    *(f"{ratio:.2f} x" for ratio in pair),
                    str(row["layers_by_band_sums"]),
                ]
            )
    titles = " | ".join(found["titles"].values())
    header = f"{found['device']}, 32 px, width 64 | Batch | {titles} | Faster than sre-conv"
    body = table(f"{header} | Than ResNet-18 | Layers by band sums", rows, right=set(range(1, 8)))
    rows_told = (_bounds, _memory, _missing)
    told = [_against(ratios), *(tell(found["rows"]) for tell in rows_told)]
    return "\n".join([*(f"{text}\n" for text in told if text), body, _made(found, "gpu")])


def _against(ratios: list[tuple[Results, list[float]]]) -> str:
    authors = [pair[0] for _, pair in ratios]
    ahead = [
        f"{row['task']} in {PRECISIONS[row['precision']]} at batch {row['batch']:,}"
        for row, pair in ratios
        if pair[1] > 1
    ]
    named = f" ({'; '.join(ahead)})" if ahead else ""
    return (
        f"Of {len(ratios)} comparisons with sre-conv, this library is faster in "
        f"{sum(ratio > 1 for ratio in authors)}, at least twice as fast in "
        f"{sum(ratio >= ASKED for ratio in authors)}, and slower in "
        f"{sum(ratio < 1 for ratio in authors)}. It is ahead of ResNet-18 in {len(ahead)}{named}."
    )


def _bounds(rows: list[Results]) -> str:
    """Tell of the largest batch forward which share of the device's rates was reached."""
    told = []
    for precision, title in PRECISIONS.items():
        some = [r for r in rows if (r["task"], r["precision"]) == ("forward", precision)]
        if not some:
            continue
        row = max(some, key=lambda r: r["batch"])
        ours, theirs = (row["shares"][name] for name in ("sre", "resnet18"))
        told.append(
            f"{title}: {_shares(ours)}, ResNet-18 {_shares(theirs)} (batch {row['batch']:,})"
        )
    if not told:
        return ""
    return (
        "Of the device's rate of multiply-adds, and of its bandwidth, the passes forward reach in "
        f"{'; '.join(told)}."
    )


def _shares(found: Results) -> str:
    both = (found[name] for name in ("of_multiply_adds", "of_bandwidth"))
    return " and ".join(f"{100 * share:.0f} %" for share in both)


def _memory(rows: list[Results]) -> str:
    """Tell what calls take at the largest batch that all have."""
    names = ("sre", "sre_conv", "resnet18")
    told = []
    for task, precision in itertools.product(dict.fromkeys(r["task"] for r in rows), PRECISIONS):
        some = [r for r in rows if (r["task"], r["precision"]) == (task, precision)]
        some = [r for r in some if all(r["peak_memory_mb"].get(name) for name in names)]
        if not some:
            continue
        row = max(some, key=lambda r: r["batch"])
        figures = " / ".join(f"{row['peak_memory_mb'][name]:,.0f}" for name in names)
        told.append(f"{task}, {PRECISIONS[precision]}, batch {row['batch']:,}: {figures}")
    if not told:
        return ""
    return f"Memory in MB that a call adds, here, of sre-conv and ResNet-18: {'; '.join(told)}."


def _missing(rows: list[Results]) -> str:
    tasks = dict.fromkeys(row["task"] for row in rows)
    batches = sorted({row["batch"] for row in rows})
    there = {(row["task"], row["precision"], row["batch"]) for row in rows}
    gaps = []
    for task, precision in itertools.product(tasks, PRECISIONS):
        absent = [f"{b:,}" for b in batches if (task, precision, b) not in there]
        if absent:
            gaps.append(f"{task}, {PRECISIONS[precision]}, batch {', '.join(absent)}")
    return f"Not measured, as the run was cut short: {'; '.join(gaps)}." if gaps else ""


def gpu_training(found: Results | None, evaluated: Results | None) -> str:
    """What a step takes by each way, what the epochs of the paper's preset, and an evaluation."""
    if found is None or evaluated is None:
        return NONE
    names = list(dict.fromkeys(name for step in found["steps"].values() for name in step["ms"]))
    titles = {"sre_resnet18": "SRE", "gmr_resnet18": "GMR", "resnet18": "CNN"}
    rows = []
    for model, step in found["steps"].items():
        run = found["runs"][model]
        rows.append(
            [
                titles[model],
                *(_ms(step["ms"][name]["median"] / 1000) for name in names),
                f"{run['epoch_s']['median']:.1f} s",
                f"{run['asked_s']:.0f} s",
            ]
        )
    runs, whole = found["runs"].values(), evaluated["whole"]
    total, epochs = sum(run["asked_s"] for run in runs), {run["epochs"] for run in runs}
    asked = max(run["asked_epochs"] for run in runs)
    pace = (
        f", at the pace of the epochs after the first, of {max(epochs)} that were run"
        if max(epochs) < asked
        else ""
    )
    header = f"A step of {max(s['batch'] for s in found['steps'].values())} images"
    body = table(
        f"{header} | {' | '.join(name.capitalize() for name in names)} | An epoch | {asked} epochs",
        rows,
        right=set(range(1, 3 + len(names))),
    )
    return (
        f"{body}\nAll three together take {total / 60:.1f} minutes for {asked} epochs of "
        f"`{found['dataset']}`{pace}. An evaluation of {whole['images']:,} images by "
        f"{whole['networks']} networks of width 16 at {whole['angles']} angles takes "
        f"{whole['took_s']:.1f} s, the first time {evaluated['first']['took_s']:.1f} s "
        f"(`{evaluated['dataset']}`).\n\n{_made(found, 'gpu_training', 'evaluate-gpu')}"
    )


def _ms(seconds: float) -> str:
    ms = 1000 * seconds
    return f"{ms:,.0f} ms" if ms >= 100 else f"{ms:.1f} ms" if ms >= 10 else f"{ms:.2f} ms"


def _made(found: Results, *files: str) -> str:
    listed = " and ".join(f"`bench/results/{name}.json`" for name in files)
    return (
        f"Medians. {found['device']}, {found['processor']}, PyTorch {found['versions']['torch']}, "
        f"{found['date']}; from {listed}.\n"
    )
