"""What the README says of the fine recipe follows the figures, for better and for worse."""

from typing import Any

import pytest

from bench.accuracy import FILES, arm_facts
from bench.readme_fine import NONE, fine
from sre.studies.sweep_file import read_sweep
from tests.test_readme_accuracy import arm, figure, pair

SWEEP = read_sweep(FILES[0].with_name("fine.toml"))
SRE, CNN, BLURRED = (one.name for one in SWEEP.arms)


def made(gap: float, consistency: float, *, times: bool = False) -> dict[str, Any]:
    arms = {SRE: arm(25), CNN: arm(100), BLURRED: arm(100)}
    arms[SRE] |= {"consistency": figure(consistency), "multiply_adds": 14_700_000}
    seconds = {"digits": {SRE: {"median": 0.003}, CNN: {"median": 0.002}}}
    time = {"seconds": seconds, "images": 64, "processor": "a processor", "threads": 2}
    return {
        "arms": {one.name: arm_facts(SWEEP, one) | {"sweep": "fine"} for one in SWEEP.arms},
        "datasets": {
            "digits": {
                "images": 400,
                "arms": arms,
                "pairs": [pair(SRE, CNN, 0.0, gap), pair(SRE, BLURRED, 0.0, -0.1)],
            }
        },
        "protocol": "disc",
        "angles_deg": [0.0, 90.0, 180.0, 270.0],
        "time": time | {"date": "2026-11-25"} if times else None,
    }


@pytest.mark.parametrize(("gap", "said"), [(0.2, "ahead"), (-0.2, "behind"), (0.0, "undecided")])
def test_the_words_follow_the_figures(gap, said):
    text = fine(made(gap, 0.95))
    above = next(line for line in text.splitlines() if "above the CNN trained turned" in line)
    assert f"{said} on 1 of 1: `digits`" in above
    blurred = next(line for line in text.splitlines() if "anti-aliased pools in the CNN" in line)
    assert "surely behind on 1 of 1: `digits` -10.0" in blurred
    assert "| `digits` | CNN, at the same rate, trained turned | 3 |" in text
    assert "From `bench/results/accuracy-fine.json`" in text


@pytest.mark.parametrize(("consistency", "steady"), [(0.991, 1), (0.989, 0)])
def test_costs_and_consistency_are_told(consistency, steady):
    text = fine(made(0.1, consistency))
    assert "25 % of the parameters of the CNN trained turned and 98 % of its multiply-adds" in text
    assert f"is 99 % or more on {steady} of 1 (`digits` {100 * consistency:.1f})." in text
    assert "an image takes 1.5 times as long" in fine(made(0.1, consistency, times=True))


def test_what_is_missing_is_said():
    assert fine(None) == NONE
    without = made(0.1, 0.9)
    del without["datasets"]["digits"]["arms"][CNN]
    assert "No data set has both networks yet." in fine(without)
