"""What the README says of the levers tried on the recipe, from bench/results/levers.json alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from bench.markdown import percent, table

NONE = "No lever has been tried yet.\n"
ASKED_CONSISTENCY = 0.99


@dataclass(frozen=True, slots=True)
class Trial:
    """One network on every data set, over the seeds that it, the recipe and the rival share."""

    title: str
    seeds: Sequence[str]
    means: Mapping[str, float]  # over all angles, by data set
    consistencies: Mapping[str, float]
    parameters: int  # on the first data set
    multiply_adds: int
    recipe: Mapping[str, float]  # means over all angles of the same seeds
    rival: Mapping[str, float]

    @property
    def gain(self) -> float:
        """Over the recipe, mean over the data sets."""
        return fmean(mean - self.recipe[name] for name, mean in self.means.items())

    @property
    def beats_rival(self) -> bool:
        """Tell whether it is above the rival on most sets."""
        ahead = sum(mean > self.rival[name] for name, mean in self.means.items())
        return 2 * ahead > len(self.means)


def levers(found: dict[str, Any] | None) -> str:
    """A row a lever, beside the recipe and the CNN that it is held against; then in words."""
    made = _trials(found) if found else {}
    if found is None or not set(made) >= {found["recipe"], found["rival"]}:
        return NONE
    names = list(made[found["recipe"]].means)
    rows = [_row(trial, is_changed=name in found["levers"]) for name, trial in made.items()]
    sets = " | ".join(f"`{name}`" for name in names)
    header = f"Changed | Seeds | {sets} | Gain | Consistency | Parameters | Multiply-adds"
    tried = [trial for name, trial in made.items() if name in found["levers"]]
    return (
        table(header, rows, right=set(range(1, len(names) + 6)))
        + f"\nParameters and multiply-adds are those of `{names[0]}`. {_words(tried)}\n"
    )


def _trials(found: dict[str, Any]) -> dict[str, Trial]:
    """Read what was tried on every data set with a seed that the recipe and its rival have, too."""
    titles = {
        found["recipe"]: "Nothing: the recipe",
        **found["levers"],
        found["rival"]: "CNN, at the same rate, trained turned",
        **found.get("rivals", {}),
    }
    made = {}
    granted = found.get("rivals", {})
    for name, title in titles.items():
        # Who is granted the same, if that was tried: else it would win by what both could have.
        rival = f"{name}-rival" if f"{name}-rival" in granted else found["rival"]
        needed = {found["recipe"], rival, name}
        datasets = found["datasets"]
        runs = [set(of_set.get(arm, ())) for of_set in datasets.values() for arm in needed]
        seeds = sorted(set.intersection(*runs)) if runs else []
        if seeds:
            made[name] = _trial(title, seeds, datasets, name, found["recipe"], rival)
    return made


def _trial(
    title: str, seeds: list[str], datasets: dict[str, Any], name: str, recipe: str, rival: str
) -> Trial:
    def means(arm: str, figure: str = "accuracy_mean") -> dict[str, float]:
        return {
            dataset: fmean(of_set[arm][seed][figure] for seed in seeds)
            for dataset, of_set in datasets.items()
        }

    first = next(iter(datasets.values()))[name][seeds[0]]
    return Trial(
        title,
        seeds,
        means(name),
        means(name, "consistency"),
        first["parameters"],
        first["multiply_adds"],
        means(recipe),
        means(rival),
    )


def _row(trial: Trial, *, is_changed: bool) -> list[str]:
    return [
        trial.title,
        str(len(trial.seeds)),
        *(percent(mean) for mean in trial.means.values()),
        f"{100 * trial.gain:+z.1f}" if is_changed else "",
        percent(fmean(trial.consistencies.values())),
        f"{trial.parameters:,}",
        f"{trial.multiply_adds / 1e6:.1f} M",
    ]


def _words(tried: list[Trial]) -> str:
    ahead = [trial for trial in tried if trial.gain > 0]
    steady = [t for t in tried if min(t.consistencies.values()) >= ASKED_CONSISTENCY]
    beat = [trial for trial in tried if trial.beats_rival]
    return (
        f"More accurate than the recipe over all angles, on average: {_list(ahead)}. "
        f"A consistency of {ASKED_CONSISTENCY} or more on every set: {_list(steady)}. "
        "Above the CNN trained turned, granted the same where that is listed, on most of these "
        f"sets: {_list(beat)}."
    )


def _list(trials: list[Trial]) -> str:
    return "; ".join(trial.title for trial in trials) or "none"
