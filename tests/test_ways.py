"""The benchmark of the two fast ways, on a layer that takes no time."""

import pytest

from bench.ways import TASKS, WAYS, judge, measure


def test_a_layer_is_timed_both_ways():
    row = measure(4, 4, 6, 3, batch=1, rounds=3)
    assert row["chosen"] in WAYS
    for task in TASKS:
        assert row[task]["ratio"]["n"] == 3
        assert min(row[task][way]["q1"] for way in WAYS) > 0


def test_what_a_choice_costs():
    def row(chosen: str, bands: float, spectra: float) -> dict:
        times = {"bands": {"median": bands}, "spectra": {"median": spectra}}
        return {"chosen": chosen, "forward": times}

    found = judge([row("bands", 1.0, 4.0), row("bands", 2.0, 1.0)], "forward")
    assert (found["layers"], found["right"]) == (2, 1)
    assert found["over_best"] == found["bands_over_best"] == pytest.approx(2**0.5)
    assert found["spectra_over_best"] == pytest.approx(2.0)
