"""What the README says of accuracies follows the figures, for better and for worse."""

from typing import Any

import pytest

from bench.readme_accuracy import NONE, claims, results
from bench.readme_recipe import recipe
from bench.readme_widths import NO_WIDTHS, widths

ARMS = {
    "sre": ("SRE", "sre", False, ""),
    "plain": ("CNN", "plain", False, ""),
    "plain-rotated": ("CNN, trained turned", "plain", True, ""),
    "sre-rotated": ("SRE, trained turned", "sre", True, ""),
    "plain-averaged": ("CNN, averaged", "plain", False, "plain"),
    "sre-small": ("SRE, small", "sre", False, ""),
    "plain-fast": ("CNN, fast", "plain", False, ""),
    "sre-fine": ("SRE, enlarged", "sre", False, ""),
}
SWEEPS = {"sre-small": "recipe", "plain-fast": "recipe", "sre-fine": "recipe"}
SIDES = {"sre-fine": 42}
MEMORY = {"peak_memory_mb": {"batch": 8, "sre": 100.0, "resnet18": 300.0, "twin": 200.0}}
HEAVY = {"peak_memory_mb": {"batch": 8, "sre": 900.0, "resnet18": 300.0, "twin": 200.0}}


def figure(value: float, spread: float = 0.01) -> dict[str, float]:
    return {"value": value, "low": value - spread, "high": value + spread}


def arm(parameters: int, far: float = 0.8, width: int = 16) -> dict[str, Any]:
    names = ("accuracy_at_0", "accuracy_mean", "accuracy_worst", "consistency", "auc_at_0")
    run = {"device": "cpu, 2 threads", "created": "2026-11-21"}
    by_angle = [0.8, 0.8, far, 0.8]  # at 0, 90, 180, 270 degrees
    return {
        "seeds": [1, 2, 3],
        "parameters": parameters,
        "width": width,
        "multiply_adds": 15_000_000,
        "runs": [run],
        "accuracy_by_angle": by_angle,
        "training_s": [10.0, 30.0, 20.0],
        **{name: figure(0.8) for name in names},
    }


def pair(first: str, second: str, upright: float, mean: float) -> dict[str, Any]:
    return {"first": first, "second": second, "upright": figure(upright), "mean": figure(mean)}


def made(
    *pairs: dict[str, Any], far: float = 0.8, sre: int = 25, width: int = 16
) -> dict[str, Any]:
    told = ("title", "family", "rotate", "averages")
    arms = {name: arm(sre if "sre" in name else 100, far, width) for name in ARMS}
    return {
        "arms": {
            name: dict(zip(told, facts, strict=True))
            | {"sweep": SWEEPS.get(name, "accuracy"), "side_px": SIDES.get(name)}
            for name, facts in ARMS.items()
        },
        "datasets": {"digits": {"images": 400, "arms": arms, "pairs": list(pairs)}},
        "protocol": "disc",
        "angles_deg": [0.0, 90.0, 180.0, 270.0],
        "time": None,
    }


WINS = made(
    pair("sre", "plain", 0.0, 0.2),
    pair("sre", "plain-rotated", 0.0, 0.1),
    pair("sre", "sre-rotated", 0.0, 0.0),
    pair("plain", "plain-rotated", 0.0, -0.1),
)
LOSES = made(
    pair("plain", "sre", 0.3, 0.2),  # the other way round
    pair("sre", "plain-rotated", 0.0, -0.1),
    pair("sre", "sre-rotated", 0.0, -0.2),
    pair("plain", "plain-rotated", 0.2, -0.1),
    far=0.5,
    sre=70,
)


def test_without_runs_it_says_so():
    assert results(None) == NONE
    assert "| Better on every turned test set | not measured here | no run has been" in claims(
        None, None, None
    )


def test_the_table_has_every_arm_with_its_costs():
    text = results(WINS)
    assert (
        "| `digits` | SRE | 3 | 80.0 (79.0 to 81.0) | 80.0 (79.0 to 81.0) | 80.0 (79.0 to 81.0) | "
        "80.0 (79.0 to 81.0) | 0.800 (0.790 to 0.810) | 25 | 15.0 M | 20 s | not measured |"
    ) in text
    assert "| none of its own | not measured |" in text
    assert "trained 2026-11-21 on cpu, 2 threads. From" in text


def test_an_interval_of_one_seed_is_said_to_lack_the_seeds():
    said = "Of a single seed, the interval is over images alone."
    assert said not in results(WINS)
    single = made(pair("sre", "plain", 0.0, 0.2))
    single["datasets"]["digits"]["arms"]["plain"]["seeds"] = [2]
    assert said in results(single)


def test_times_are_shown_where_they_were_taken():
    times = {"images": 64, "processor": "One", "threads": 2, "date": "2026-11-22"}
    text = results(WINS | {"time": times | {"seconds": {"digits": {"sre": {"median": 0.0015}}}}})
    assert "| 20 s | 1.5 ms |" in text
    assert "Time of an image: median of batches of 64, One, 2 threads, 2026-11-22." in text


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (WINS, "less the CNN, mean over all angles, in points: surely ahead on 1 of 1: `digits` "
               "+20.0 (+19.0 to +21.0)."),
        (WINS, "less the CNN, upright, in points: undecided on 1 of 1: `digits` +0.0 (-1.0 to"),
        (WINS, "averaged over turns, mean over all angles, in points: no data set has both yet."),
        (WINS, "are surely behind the CNN at 0 degrees: on none of these is that sure."),
        (LOSES, "less the CNN, mean over all angles, in points: surely behind on 1 of 1: `digits` "
                "-20.0 (-21.0 to -19.0)."),
        (LOSES, "trained turned, mean over all angles, in points: surely behind on 1 of 1: `digit"),
        (LOSES, "are surely behind the CNN at 0 degrees: so it seems on `digits`."),
        (made(), "are surely behind the CNN at 0 degrees: no data set has all three yet."),
    ],
)  # fmt: skip
def test_questions_are_answered_by_the_figures(found, said):
    assert said in results(found)


@pytest.mark.parametrize(
    ("found", "memory", "rows"),
    [
        (WINS, MEMORY, [
            "| Better on every turned test set | holds | surely above the CNN on 1 of 1: `digits`",
            "| 70 to 90 % fewer parameters | holds | 75 % fewer than the CNN of the same width; by "
            "the recipe below 75 % |",
            "| 20 to 40 % fewer parameters | does not hold | 75 % fewer than the CNN",
            "| Less memory | holds | forward, batch 8: 100 MB against 300 of ResNet-18 and 200 of",
            "| No augmentation needed | holds | without, SRE is surely behind the CNN trained turn"
            "ed on 0 of 1; with, it surely gains on 0 of 1 |",
            "| Little loss at 0 degrees | holds | more than 1 point lost on 0 of 1 |",
            "| Weak beyond 90 degrees | does not hold | accuracy beyond 90 degrees less that withi"
            "n, in points: `digits` +0.0 |",
            "| Better on turned volumes, too | not measured here |",
        ]),
        (LOSES, HEAVY, [
            "| Better on every turned test set | does not hold | surely above the CNN on 0 of 1",
            "| 20 to 40 % fewer parameters | holds | 30 % fewer than the CNN of the same width; by "
            "the recipe below 30 % |",
            "| Less memory | does not hold | forward, batch 8: 900 MB",
            "| No augmentation needed | does not hold | without, SRE is surely behind the CNN trai"
            "ned turned on 1 of 1 (`digits` -10.0 (-11.0 to -9.0)); with, it surely gains on 1 of",
            "| Little loss at 0 degrees | does not hold | more than 1 point lost on 1 of 1 (`digit",
            "| Weak beyond 90 degrees | holds | accuracy beyond 90 degrees less that within, in po"
            "ints: `digits` -30.0 |",
        ]),
        (made(), MEMORY, [
            "| Little loss at 0 degrees | not measured here | no data set has both networks yet |",
        ]),
    ],
)  # fmt: skip
def test_claims_are_held_against_the_figures(found, memory, rows):
    text = claims(found, memory, memory, found)
    for row in rows:
        assert row in text, text


def test_less_memory_in_some_cases_holds_in_part():
    assert "| Less memory | holds in part | " in claims(None, MEMORY, HEAVY)
    assert "| Less memory | not measured here | `make bench`" in claims(None, MEMORY, None)


def test_the_recipe_has_a_table_and_words_of_its_own():
    validation = {"seeds": [1], "consistency": 0.5, "parameters": 12, **dict.fromkeys(
        ("accuracy_at_0", "accuracy_mean", "accuracy_worst"), 0.8)}  # fmt: skip
    chosen = {
        "arms": {"sre": "SRE", "sre-small": "SRE, small"},
        "datasets": {"digits": {"sre": validation, "sre-small": validation}},
    }
    tested = made(
        pair("sre", "sre-small", 0.0, -0.05),
        pair("plain-fast", "sre-small", 0.0, 0.03),
        pair("sre-small", "sre-fine", 0.0, -0.07),
    )
    text = recipe(chosen, tested)
    assert "surely ahead on 1 of 1: `digits` +5.0 (+4.0 to +6.0)" in text
    assert (
        "SRE by the recipe less the CNN at the same rate, mean over all angles, in points: surely"
        in text
    )
    assert "surely behind on 1 of 1: `digits` -3.0 (-4.0 to -2.0)" in text
    assert (
        "SRE by the recipe on enlarged images less SRE by the recipe, mean over all angles, in "
        "points: surely ahead on 1 of 1: `digits` +7.0"
    ) in text
    assert "| `digits` | CNN, fast | 3 |" in text
    assert "CNN, fast" not in results(tested)
    assert "On the test images" not in recipe(chosen)


def test_claims_tell_what_the_recipe_makes_of_them():
    lost, won = pair("sre", "plain", -0.1, -0.1), pair("sre-small", "plain-fast", -0.1, 0.2)
    both = made(lost, won)
    rows = claims(both, None, None, both).splitlines()
    better = next(row for row in rows if "every turned test set" in row)
    assert "does not hold" in better
    assert "at width 16, surely ahead on 1 and surely behind on 0 of 1" in better
    loss = next(row for row in rows if "Little loss" in row)
    assert "by the recipe below, at width 16, surely ahead on 0 and surely behind on 1 of" in loss
    without = made(lost)
    for name in SWEEPS:
        del without["datasets"]["digits"]["arms"][name]
    assert "recipe" not in claims(both, None, None, without)
    assert "recipe" not in claims(both, None, None)


def test_a_loss_at_another_width_is_told_with_the_claims():
    narrow, wide = (
        made(pair("sre", "plain", 0.0, -0.1)),
        made(pair("sre", "plain", 0.0, 0.1), width=32),
    )
    better = claims(wide, None, None, narrow).splitlines()[2]
    assert (
        "surely above the CNN on 1 of 1: `digits` +10.0 (+9.0 to +11.0); at width 16 surely above "
        "it on 0 and surely behind on 1 of 1 (`digits` -10.0 (-11.0 to -9.0))"
    ) in better
    widest = made(pair("sre", "plain", 0.0, -0.2), width=64)
    better = claims(wide, None, None, narrow, None, widest).splitlines()[2]
    assert "; at width 64 surely above it on 0 and surely behind on 1 of 1 (`digits`" in better


def test_widths_are_set_side_by_side():
    narrow = made(pair("sre", "plain", 0.0, -0.1), pair("sre", "plain-rotated", 0.0, 0.0))
    wide = made(pair("sre", "plain", 0.0, 0.1), pair("sre", "plain-rotated", 0.0, 0.2), width=32)
    widest = made(pair("sre", "plain", 0.0, 0.3), width=64)
    del wide["datasets"]["digits"]["arms"]["sre-rotated"]  # not made yet
    for one in widest["datasets"]["digits"]["arms"].values():
        one["runs"] = [{"device": "NVIDIA H200", "created": "2026-11-26"}]
    text = widths(wide, narrow, widest)
    assert "| Seeds, 16, 32, 64 | Upright, 16 | Upright, 32 | Upright, 64 | Mean, 16 |" in text
    assert "| `digits` | CNN, trained turned | 3, 3, 3 | 80.0 | 80.0 | 80.0 | 80.0 |" in text
    assert "| `digits` | SRE, trained turned | 3, 0, 3 | 80.0 | not yet | 80.0 | 80.0 |" in text
    assert "SRE, small" not in text  # of another sweep
    assert "The same questions at width 16:" in text
    assert "The same questions at width 64:" in text
    assert "The same questions at width 32:" not in text  # which the first table answers
    assert "surely behind on 1 of 1: `digits` -10.0" in text
    assert (
        "SRE less the CNN, mean over all angles: at width 16 surely ahead on 0 and surely behind "
        "on 1 of 1; at width 32 surely ahead on 1 and surely behind on 0 of 1; at width 64 surely "
        "ahead on 1 and surely behind on 0 of 1."
    ) in text
    assert "at width 64 surely ahead on 0 and surely behind on 0 of 0." in text  # rotated: none
    assert (
        "those of width 32 2026-11-21 on cpu; those of width 64 2026-11-26 on NVIDIA H200." in text
    )
    assert "Seeds, 16, 32 |" in widths(wide, narrow, None)
    assert widths(wide, None) == widths(None, narrow) == NO_WIDTHS
    narrow["datasets"] = {}
    assert widths(wide, narrow) == NO_WIDTHS
