"""What the README says of the comparison of accuracies, from bench/results/accuracy.json alone.

Beside it, those of narrower networks, accuracy-w16.json, among which the recipe's are, and of wider
ones. A difference is called sure where the whole of its interval lies on one side of 0.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from bench.markdown import area, points, shares, span, table
from bench.readme_volumes import claim

NONE = "No run has been made yet; `make accuracy` makes them, which takes hours on a CPU.\n"
LITTLE = 0.01  # of accuracy: what counts as a little loss in the claims
ROLES = {
    "sre": "SRE",
    "plain": "the CNN",
    "augmented": "the CNN trained turned",
    "averaged": "the CNN averaged over turns",
    "recipe-sre": "SRE by the recipe",
    "recipe-sre-augmented": "SRE by the recipe trained turned",
    "recipe-plain": "the CNN at the same rate",
    "recipe-augmented": "the CNN trained turned at the same rate",
    "recipe-sre-enlarged": "SRE by the recipe on enlarged images",
    "recipe-augmented-enlarged": "the CNN trained turned at the same rate on enlarged images",
    "fine-sre-enlarged-blurred": "SRE by the fine recipe",
    "fine-augmented": "the CNN trained turned at the same rate",
    "fine-augmented-blurred": "that CNN with anti-aliased pools",
}


@dataclass(frozen=True)
class Difference:
    """One arm less another on one data set."""

    dataset: str
    value: float
    low: float
    high: float

    @property
    def told(self) -> str:
        return f"`{self.dataset}` {points(asdict(self))}"


class Comparison:
    """The results, asked by roles: "sre", "plain", "augmented", "averaged", "sre-augmented".

    Those of another sweep have its name before them ("recipe-"), those on larger images "-enlarged"
    behind, those with anti-aliased pools "-blurred".
    """

    def __init__(self, found: dict[str, Any]):
        self.datasets: dict[str, Any] = found["datasets"]
        self.arms: dict[str, str] = {}
        for name, arm in found["arms"].items():
            self.arms.setdefault(_role(arm), name)

    def differences(self, first: str, second: str, figure: str) -> list[Difference]:
        """List "upright" or "mean" differences of accuracy, of the data sets that have both."""
        named = self.arms.get(first), self.arms.get(second)
        told = []
        for dataset, one in self.datasets.items():
            for pair in one["pairs"]:
                sign = {named: 1, named[::-1]: -1}.get((pair["first"], pair["second"]), 0)
                if sign:
                    ends = sorted(sign * pair[figure][end] for end in ("low", "high"))
                    told.append(Difference(dataset, sign * pair[figure]["value"], *ends))
        return told

    def figures(self, role: str, name: str) -> dict[str, Any]:
        """Look up one figure of one arm, by data set."""
        arm = self.arms.get(role)
        return {d: one["arms"][arm][name] for d, one in self.datasets.items() if arm in one["arms"]}

    @property
    def width(self) -> str:
        """Tell the width of its networks, or from which to which they are."""
        arms = [arm for one in self.datasets.values() for arm in one["arms"].values()]
        return span(sorted({arm["width"] for arm in arms}), "")


def _role(arm: dict[str, Any]) -> str:
    if arm["sweep"] != "accuracy":
        return f"{arm['sweep']}-{_role(arm | {'sweep': 'accuracy'})}"
    if arm.get("blur_pools"):
        return f"{_role(arm | {'blur_pools': False})}-blurred"
    if arm.get("side_px"):
        return f"{_role(arm | {'side_px': None})}-enlarged"
    if arm["averages"]:
        return "averaged" if arm["family"] == "plain" and not arm["rotate"] else "other"
    if arm["rotate"]:
        return "augmented" if arm["family"] == "plain" else f"{arm['family']}-augmented"
    return arm["family"]


def results(found: dict[str, Any] | None) -> str:
    """Write what the networks' figures answer, and the table of all arms on all data sets."""
    if found is None:
        return NONE
    parts = [f"{text}\n" for text in answers(Comparison(found))]
    parts += [arms_table(found, "accuracy"), circumstances(found, "accuracy")]
    return "\n".join(parts)


def arms_table(found: dict[str, Any], sweep: str) -> str:
    """Write the table of a sweep's arms; empty if none is done."""
    rows = [
        _row(dataset, name, found)
        for dataset, one in found["datasets"].items()
        for name, arm in found["arms"].items()
        if name in one["arms"] and arm["sweep"] == sweep
    ]
    header = (
        "Data set | Network | Seeds | Upright | Mean | Worst | Consistency | AUC | Parameters | "
        "Multiply-adds | Training | An image"
    )
    return table(header, rows, right=set(range(2, 12))) if rows else ""


def _row(dataset: str, name: str, found: dict[str, Any]) -> list[str]:
    arm, facts = found["datasets"][dataset]["arms"][name], found["arms"][name]
    taken = ((found["time"] or {}).get("seconds", {}).get(dataset) or {}).get(name)
    names = ("accuracy_at_0", "accuracy_mean", "accuracy_worst", "consistency")
    return [
        f"`{dataset}`",
        facts["title"],
        str(len(arm["seeds"])),
        *(shares(arm[figure]) for figure in names),
        area(arm["auc_at_0"]),
        f"{arm['parameters']:,}",
        f"{arm['multiply_adds'] / 1e6:.1f} M",
        "none of its own" if facts["averages"] else f"{median(arm['training_s']):,.0f} s",
        f"{1000 * taken['median']:.1f} ms" if taken else "not measured",
    ]


def circumstances(found: dict[str, Any], name: str) -> str:
    """Tell how the figures of a results file came about."""
    runs = [r for d in found["datasets"].values() for a in d["arms"].values() for r in a["runs"]]
    devices = _listed(sorted({run["device"] for run in runs}))
    made = span(sorted({run["created"] for run in runs}), "")
    images = _listed(f"`{d}` {one['images']:,}" for d, one in found["datasets"].items())
    counts = [len(a["seeds"]) for d in found["datasets"].values() for a in d["arms"].values()]
    alone = " Of a single seed, the interval is over images alone." if 1 in counts else ""
    timed = found["time"]
    image = (
        f" Time of an image: median of batches of {timed['images']}, {timed['processor']}, "
        f"{timed['threads']} threads, {timed['date']}."
        if timed and timed["seconds"]
        else ""
    )
    return (
        f"Percent of the test images ({images}) under the `{found['protocol']}` protocol, at 0 "
        f"degrees and over {len(found['angles_deg'])} angles; means over the seeds, with 95 % "
        f"bootstrap intervals over images and seeds.{alone} Width {Comparison(found).width}. "
        f"Training: median seconds, trained {made} on {devices}.{image} From "
        f"`bench/results/{name}.json`.\n"
    )


ASKED = (
    ("Turned, does SRE beat the CNN?", "sre", "plain", "mean"),
    ("Does it beat random rotations in training?", "sre", "augmented", "mean"),
    ("Does it beat averaging over turns at test time?", "sre", "averaged", "mean"),
    ("What does it cost at 0 degrees?", "sre", "plain", "upright"),
)
ASKED_OF_RECIPE = (
    ("Does the recipe make SRE better?", "recipe-sre", "sre", "mean"),
    ("Turned, does it then beat the CNN?", "recipe-sre", "recipe-plain", "mean"),
    ("And the CNN trained turned?", "recipe-sre", "recipe-augmented", "mean"),
    ("Where both are trained turned?", "recipe-sre-augmented", "recipe-augmented", "mean"),
    ("What does it cost at 0 degrees?", "recipe-sre", "recipe-plain", "upright"),
    ("Does it help SRE to enlarge the images?", "recipe-sre-enlarged", "recipe-sre", "mean"),
    (
        "Against the CNN trained turned on images as they are?",
        "recipe-sre-enlarged", "recipe-augmented", "mean",
    ),
    ("And with both enlarged?", "recipe-sre-enlarged", "recipe-augmented-enlarged", "mean"),
)  # fmt: skip


def answers(comparison: Comparison) -> list[str]:
    """Answer what one wants to know, one paragraph a question."""
    return [*paragraphs(comparison, ASKED), _orientation(comparison)]


def paragraphs(comparison: Comparison, asked: Iterable[tuple[str, str, str, str]]) -> list[str]:
    """Answer questions: in bold what is asked, then one role less another, by data set."""
    told = []
    for question, first, second, figure in asked:
        found = comparison.differences(first, second, figure)
        where = "mean over all angles" if figure == "mean" else "upright"
        said = _standing(found) if found else "no data set has both yet"
        pair = f"{ROLES[first]} less {ROLES[second]}"
        told.append(f"**{question}** {_upper(pair)}, {where}, in points: {said}.")
    return told


def _standing(found: Sequence[Difference]) -> str:
    ahead = [d for d in found if d.low > 0]
    behind = [d for d in found if d.high < 0]
    unsure = [d for d in found if d not in ahead and d not in behind]
    groups = (("surely ahead", ahead), ("surely behind", behind), ("undecided", unsure))
    return "; ".join(
        f"{name} on {len(group)} of {len(found)}: {', '.join(d.told for d in group)}"
        for name, group in groups
        if group
    )


def _orientation(comparison: Comparison) -> str:
    sre = comparison.differences("sre", "plain", "upright")
    turned = comparison.differences("augmented", "plain", "upright")
    both = {d.dataset for d in sre} & {d.dataset for d in turned}
    sure = [f"`{d.dataset}`" for d in sre if d.high < 0 and d.dataset in
            {t.dataset for t in turned if t.high < 0}]  # fmt: skip
    said = "no data set has all three yet"
    if both:
        said = f"so it seems on {_listed(sure)}" if sure else "on none of these is that sure"
    return (
        "**Where does the way an image lies tell its class?** Where both SRE and the CNN trained "
        f"turned, to whom it says nothing, are surely behind the CNN at 0 degrees: {said}."
    )


def claims(
    found: dict[str, Any] | None,
    forward: dict[str, Any] | None,
    step: dict[str, Any] | None,
    tuned: dict[str, Any] | None = None,
    solid: dict[str, Any] | None = None,
    wide: dict[str, Any] | None = None,
) -> str:
    """Hold what is said of SRE-Conv against what was measured.

    Args: tuned: the results that have the recipe's networks; solid: those on volumes; wide: those
            of wider networks
    """
    comparison = Comparison(found) if found else None
    recipe = Comparison(tuned) if tuned else None
    # A loss at another width is not to be lost.
    others = [recipe, Comparison(wide) if wide else None]
    also = "".join(
        _also(one) for one in others if one and comparison and one.width != comparison.width
    )
    rows = [
        ["Better on every turned test set", *_better(comparison, recipe, also)],
        *([f"{least} to {most} % fewer parameters", *_fewer(comparison, recipe, least, most)]
          for least, most in ((70, 90), (20, 40))),
        ["Less memory", *_memory(forward, step)],
        ["No augmentation needed", *_no_augmentation(comparison, recipe)],
        ["Little loss at 0 degrees", *_little_loss(comparison, recipe)],
        ["Weak beyond 90 degrees", *_beyond(comparison)],
        ["Better on turned volumes, too", *claim(solid)],
    ]  # fmt: skip
    return table("Said of SRE-Conv | Here | Measured", rows, right=set())


_Answer = tuple[str, str]


def _missing(comparison: Comparison | None) -> _Answer:
    why = "no data set has both networks yet" if comparison else "no run has been made yet"
    return "not measured here", why


def _also(other: Comparison) -> str:
    found = other.differences("sre", "plain", "mean")
    behind = [d for d in found if d.high < 0]
    return (
        f"; at width {other.width} surely above it on {sum(d.low > 0 for d in found)} and surely "
        f"behind on {len(behind)} of {len(found)}{_of(behind)}"
    )


def _better(comparison: Comparison | None, recipe: Comparison | None, also: str) -> _Answer:
    found = comparison.differences("sre", "plain", "mean") if comparison else []
    if not found:
        return _missing(comparison)
    sure = sum(d.low > 0 for d in found)
    told = f"surely above the CNN on {sure} of {len(found)}: {', '.join(d.told for d in found)}"
    return _verdict(sure == len(found)), told + also + _by_recipe(recipe, "recipe-plain", "mean")


def _by_recipe(recipe: Comparison | None, rival: str, figure: str) -> str:
    """Add what the recipe makes of it: a verdict is on the usual training."""
    found = recipe.differences("recipe-sre", rival, figure) if recipe else []
    if recipe is None or not found:
        return ""
    ahead, behind = sum(d.low > 0 for d in found), sum(d.high < 0 for d in found)
    return (
        f"; by the recipe below, at width {recipe.width}, surely ahead on {ahead} and surely "
        f"behind on {behind} of {len(found)}"
    )


def _fewer(
    comparison: Comparison | None, recipe: Comparison | None, least: int, most: int
) -> _Answer:
    if not comparison:
        return _missing(comparison)
    sre, plain = (comparison.figures(role, "parameters") for role in ("sre", "plain"))
    shares = [100 * (1 - sre[d] / plain[d]) for d in sre if d in plain]
    if not shares:
        return _missing(comparison)
    holds = all(least <= share <= most for share in shares)
    told = f"{span(shares, '.0f')} % fewer than the CNN of the same width"
    small, rival = (
        recipe.figures(role, "parameters") if recipe else {}
        for role in ("recipe-sre", "recipe-plain")
    )
    if fewer := [100 * (1 - small[d] / rival[d]) for d in small if d in rival]:
        told += f"; by the recipe below {span(fewer, '.0f')} %"
    return _verdict(holds), told


def _memory(forward: dict[str, Any] | None, step: dict[str, Any] | None) -> _Answer:
    told, holds = [], []
    for name, result in (("forward", forward), ("training step", step)):
        if result is None:
            return "not measured here", "`make bench` measures it"
        memory = result["peak_memory_mb"]
        holds += [memory["sre"] < memory[rival] for rival in ("resnet18", "twin")]
        told.append(
            f"{name}, batch {memory['batch']}: {memory['sre']:,.0f} MB against "
            f"{memory['resnet18']:,.0f} of ResNet-18 and {memory['twin']:,.0f} of the one with "
            "our stem and pools"
        )
    return _verdict(all(holds), partly=any(holds)), "; ".join(told)


def _no_augmentation(comparison: Comparison | None, recipe: Comparison | None) -> _Answer:
    if not comparison:
        return _missing(comparison)
    rival = comparison.differences("sre", "augmented", "mean")
    gain = comparison.differences("sre-augmented", "sre", "mean")
    if not rival:
        return _missing(comparison)
    behind, gained = [d for d in rival if d.high < 0], [d for d in gain if d.low > 0]
    told = (
        f"without, SRE is surely behind the CNN trained turned on {len(behind)} of {len(rival)}"
        f"{_of(behind)}"
    )
    if gain:
        told += f"; with, it surely gains on {len(gained)} of {len(gain)}{_of(gained)}"
    told += _by_recipe(recipe, "recipe-augmented", "mean")
    return _verdict(not behind and not gained), told


def _little_loss(comparison: Comparison | None, recipe: Comparison | None) -> _Answer:
    found = comparison.differences("sre", "plain", "upright") if comparison else []
    if not found:
        return _missing(comparison)
    most = [d for d in found if d.value < -LITTLE]
    told = f"more than {100 * LITTLE:.0f} point lost on {len(most)} of {len(found)}{_of(most)}"
    told += _by_recipe(recipe, "recipe-plain", "upright")
    return _verdict(not most, partly=len(most) < len(found)), told


def _beyond(comparison: Comparison | None) -> _Answer:
    by_angle = comparison.figures("sre", "accuracy_by_angle") if comparison else {}
    if not by_angle:
        return _missing(comparison)
    drops = {}
    for dataset, values in by_angle.items():
        turns = [min(a, 360 - a) for a in (360 * i / len(values) for i in range(len(values)))]
        near, far = (
            [v for v, turn in zip(values, turns, strict=True) if (turn > 90) == is_far]
            for is_far in (False, True)
        )
        drops[dataset] = sum(far) / len(far) - sum(near) / len(near)
    weak = any(drop < -LITTLE for drop in drops.values())
    told = ", ".join(f"`{name}` {100 * drop:+z.1f}" for name, drop in drops.items())
    return _verdict(weak), f"accuracy beyond 90 degrees less that within, in points: {told}"


def _verdict(holds: bool, *, partly: bool = False) -> str:
    return "holds" if holds else "holds in part" if partly else "does not hold"


def _upper(words: str) -> str:
    return words[:1].upper() + words[1:]


def _of(found: Sequence[Difference]) -> str:
    return f" ({', '.join(d.told for d in found)})" if found else ""


def _listed(words: Iterable[str]) -> str:
    *some, last = words
    return f"{', '.join(some)} and {last}" if some else last
