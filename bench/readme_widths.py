"""What the README says of networks of several widths, from the results of each."""

from typing import Any

from bench.markdown import percent, span, table
from bench.readme_accuracy import ASKED, ROLES, Comparison, paragraphs

NO_WIDTHS = "Networks of one width alone have been compared yet.\n"
_FIGURES = {"accuracy_at_0": "Upright", "accuracy_mean": "Mean", "consistency": "Consistency"}
Results = dict[str, Any]


def widths(found: Results | None, *others: Results | None) -> str:
    """Set arms of several widths side by side, and tell how SRE stands at each.

    Args: found: the results of which the README tells before; others: of other widths
    """
    several = sorted((_of_accuracy(one) for one in (found, *others) if one), key=_width)
    several = [one for one in several if one["datasets"]]
    if found is None or len({_width(one) for one in several}) < 2:
        return NO_WIDTHS
    told = [_standings(several, rival) for rival in ("plain", "augmented")]
    asked = [
        f"The same questions at width {_width(one)}:\n\n"
        + "\n\n".join(paragraphs(Comparison(one), ASKED))
        for one in several
        if _width(one) != _width(_of_accuracy(found))
    ]
    body = [*told, "", _table(several), _training(several), ""]
    return "\n".join([*body, "\n\n".join(asked), ""])


def _of_accuracy(found: Results) -> Results:
    """Leave out other sweeps' arms, such as the recipe's, and data sets that then have none."""
    names = {name for name, arm in found["arms"].items() if arm["sweep"] == "accuracy"}
    datasets = {
        dataset: one | {"arms": {n: arm for n, arm in one["arms"].items() if n in names}}
        for dataset, one in found["datasets"].items()
    }
    return found | {
        "arms": {name: arm for name, arm in found["arms"].items() if name in names},
        "datasets": {dataset: one for dataset, one in datasets.items() if one["arms"]},
    }


def _width(found: Results) -> int:
    arms = (arm for one in found["datasets"].values() for arm in one["arms"].values())
    return max((arm["width"] for arm in arms), default=0)


def _standings(several: list[Results], rival: str) -> str:
    counted = []
    for one in several:
        found = Comparison(one).differences("sre", rival, "mean")
        ahead, behind = sum(d.low > 0 for d in found), sum(d.high < 0 for d in found)
        counted.append(
            f"at width {_width(one)} surely ahead on {ahead} and surely behind on {behind} of "
            f"{len(found)}"
        )
    return f"{ROLES['sre']} less {ROLES[rival]}, mean over all angles: {'; '.join(counted)}."


def _table(several: list[Results]) -> str:
    named = ", ".join(str(_width(one)) for one in several)
    columns = [f"{title}, {_width(one)}" for title in _FIGURES.values() for one in several]
    rows = []
    for dataset, name in dict.fromkeys(
        (dataset, name) for one in several for dataset, name in _pairs(one)
    ):
        arms = [one["datasets"].get(dataset, {}).get("arms", {}).get(name) for one in several]
        title = next(one["arms"][name]["title"] for one in several if name in one["arms"])
        seeds = ", ".join(str(len(arm["seeds"]) if arm else 0) for arm in arms)
        figures = (
            percent(arm[figure]["value"]) if arm else "not yet"
            for figure in _FIGURES
            for arm in arms
        )  # fmt: skip
        rows.append([f"`{dataset}`", title, seeds, *figures])
    header = f"Data set | Network | Seeds, {named} | {' | '.join(columns)}"
    return table(header, rows, right=set(range(2, 3 + len(columns))))


def _pairs(found: Results) -> list[tuple[str, str]]:
    return [
        (dataset, name)
        for dataset, one in found["datasets"].items()
        for name in found["arms"]
        if name in one["arms"]
    ]


def _training(several: list[Results]) -> str:
    told = []
    for one in several:
        arms = [arm for data in one["datasets"].values() for arm in data["arms"].values()]
        runs = [run for arm in arms for run in arm["runs"]]
        # A CPU's threads make no other network, to rounding.
        devices = " and ".join(sorted({run["device"].partition(",")[0] for run in runs}))
        made = span(sorted({run["created"] for run in runs}), "")
        told.append(f"those of width {_width(one)} {made} on {devices}")
    counts = [
        len(arm["seeds"])
        for one in several
        for data in one["datasets"].values()
        for arm in data["arms"].values()
    ]
    alone = " Of a single seed, an interval is over images alone." if 1 in counts else ""
    return f"Networks were trained: {'; '.join(told)}.{alone}\n"
