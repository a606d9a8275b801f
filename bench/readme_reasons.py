"""What the README says of reasons, from bench/results/reasons.json alone."""

from collections.abc import Callable
from statistics import fmean
from typing import Any

from bench.markdown import percent, span, table

NONE = "No network has been asked yet.\n"
# SRE, and the CNN trained turned that it is held against.
PAIRS = (("sre", "plain-rotated"), ("sre-wide-fine", "cnn-turned"))
NAMES = {"sre": "SRE", "sre-wide-fine": "SRE by the fine recipe"}

Read = Callable[[dict[str, Any]], float | None]


def reasons(found: dict[str, Any] | None) -> str:
    """A row a network and data set, means over seeds; before it, what they answer."""
    if found is None:
        return NONE
    told = [_told(found, *pair) for pair in PAIRS]
    rows = [
        _row(dataset, found["titles"][arm], seeds)
        for dataset, arms in found["datasets"].items()
        for arm, seeds in arms.items()
        if arm in found["titles"]
    ]
    header = (
        "Data set | Network | Width | Seeds | Training images, upright | Turned | "
        "Validation images, upright | Turned | Moved | Lead | Changed | Of the unsure"
    )
    return "\n".join(
        [*filter(None, told), table(header, rows, right=set(range(2, 12))), _how(found)]
    )


def _told(found: dict[str, Any], ours: str, theirs: str) -> str:
    """Answer the questions for one pair, on the data sets and seeds that have both."""
    both = {}
    for dataset, arms in found["datasets"].items():
        sre, cnn = arms.get(ours, {}), arms.get(theirs, {})
        if shared := sorted(set(sre) & set(cnn)):
            both[dataset] = tuple({seed: one[seed] for seed in shared} for one in (sre, cnn))
    if not both:
        return ""

    def less(read: Read) -> dict[str, float]:
        return {
            name: 100 * (_mean(sre, read) - _mean(cnn, read)) for name, (sre, cnn) in both.items()
        }

    learned = less(_share("train"))
    by_heart = less(lambda one: one["train"]["turned"] - one["val"]["turned"])
    ratios = {
        name: _mean(sre, _change("moved")) / _mean(cnn, _change("moved"))
        for name, (sre, cnn) in both.items()
    }
    of_unsure = [
        [share for pair in both.values() for share in _all(pair[side], _change("of_unsure"))]
        for side in (0, 1)
    ]
    stays = [100 * _mean(sre, _change("stays_if_sure")) for sre, _ in both.values()]
    return (
        f"**{NAMES[ours]}: has it learned its images?** About training images, turned, it is right "
        f"less often than the CNN trained turned on {_below(learned)} sets, in points: "
        f"{_listed(learned, '+z.1f')}. Its lead of training over validation images, which tells "
        f"what was learned by heart, is less than the CNN's on {_below(by_heart)}: "
        f"{_listed(by_heart, '+z.1f')}.\n\n"
        f"**{NAMES[ours]}: which answers change?** {_of_changes(of_unsure[0])} of the changes are "
        "about the quarter of images of which it was least sure upright (of the CNN's "
        f"{_of_changes(of_unsure[1])}); about the others its answers stay at "
        f"{span(stays, '.1f')} % of the angles off the grid. Turning moves its probabilities so "
        f"many times as far as the CNN's: {_listed(ratios, '.2f')}.\n"
    )


def _below(values: dict[str, float]) -> str:
    # As the figures are shown: -0.02 reads 0.0, which is not less.
    return f"{sum(round(value, 1) < 0 for value in values.values())} of {len(values)}"


def _listed(values: dict[str, float], form: str) -> str:
    return ", ".join(f"`{dataset}` {value:{form}}" for dataset, value in values.items())


def _of_changes(values: list[float]) -> str:
    return f"{span([100 * value for value in values], '.0f')} %" if values else "none"


def _row(dataset: str, title: str, seeds: dict[str, Any]) -> list[str]:
    widths = sorted({one["width"] for one in seeds.values()})
    unsure = _all(seeds, _change("of_unsure"))
    return [
        f"`{dataset}`",
        title,
        span(widths, "d"),
        str(len(seeds)),
        *(
            percent(_mean(seeds, _share(split, how)))
            for split in ("train", "val")
            for how in ("upright", "turned")
        ),
        percent(_mean(seeds, _change("moved"))),
        percent(_mean(seeds, _change("lead"))),
        percent(_mean(seeds, _change("changed"))),
        percent(fmean(unsure)) if unsure else "no change",
    ]


def _share(split: str, how: str = "turned") -> Read:
    return lambda one: float(one[split][how])


def _change(name: str) -> Read:
    return lambda one: one["changes"][name]


def _all(seeds: dict[str, Any], read: Read) -> list[float]:
    """Read a figure of every seed that has it: of no change, nothing is a share."""
    return [value for one in seeds.values() if (value := read(one)) is not None]


def _mean(seeds: dict[str, Any], read: Read) -> float:
    return fmean(_all(seeds, read))


def _how(found: dict[str, Any]) -> str:
    return (
        f"Percent; means over the seeds. At most {found['images']} images of a split, as they are "
        f"and at {len(found['angles_deg'])} angles. Moved: half the sum of the absolute changes of "
        "an image's probabilities, mean over the validation images and the angles that are no "
        "quarter turn; lead: of the first class over the second, upright, median; changed: share "
        "of answers at these angles that are not that upright; of the unsure: share of these "
        f"changes that are of the {percent(found['unsure'])} % of images with the least lead. "
        f"{found['processor']}, {found['date']}; from `bench/results/reasons.json`.\n"
    )
