"""Why a network stays behind: what is asked of it, and what the README makes of that."""

import json

import numpy as np
import pytest

from bench.harness import ROOT
from bench.readme_reasons import NONE, PAIRS, reasons
from bench.reasons import FILES, MOST_IMAGES, changes, main, measure, some_of
from sre.data.split import Split
from sre.evaluation import FEW_ANGLES_DEG
from sre.home import DATA
from sre.studies.sweep_file import read_sweep
from tests.networks import write_checkpoint

ANGLES = len(FEW_ANGLES_DEG)


def told(*of_images: tuple[float, float]) -> np.ndarray:
    """Probabilities of the first of two classes, upright and at all other angles."""
    first = np.array([[upright, *[turned] * (ANGLES - 1)] for upright, turned in of_images]).T
    return np.stack([first, 1 - first], axis=-1)


def test_changes_are_those_off_the_grid():
    probability = told((0.6, 0.6), (0.9, 0.9), (0.95, 0.95), (1.0, 1.0))
    on_grid = [i for i, angle in enumerate(FEW_ANGLES_DEG) if angle % 90 == 0][1:]
    probability[on_grid] = 1 - probability[on_grid]
    found = changes(probability, np.zeros(4, int))
    assert found["changed"] == found["moved"] == 0
    assert found["of_unsure"] is found["wrong"] is None
    assert found["stays_if_sure"] == 1
    assert found["lead"] == pytest.approx((0.8 + 0.9) / 2)


def test_changes_of_unsure_images_are_told_from_others():
    probability = told((0.6, 0.4), (0.9, 0.9), (0.2, 0.7), (1.0, 1.0))
    found = changes(probability, np.array([0, 0, 0, 0]))
    assert found["changed"] == 0.5
    assert found["of_unsure"] == 0.5
    assert found["stays_if_sure"] == pytest.approx(2 / 3)
    assert found["moved"] == pytest.approx((0.2 + 0.5) / 4)
    assert found["wrong"] == 0.5  # the third image, upright, is not of the second class


def test_some_images_are_taken_with_their_labels():
    labels = np.arange(MOST_IMAGES + 100)
    split = Split(np.repeat(labels, 4).reshape(-1, 2, 2), labels)
    some = some_of(split)
    assert len(some) == MOST_IMAGES == len(set(some.labels.tolist()))
    assert (some.images == some.labels[:, None, None]).all()
    assert (some_of(split).labels == some.labels).all()
    assert some_of(some) is some


def test_a_network_is_asked_about_images_it_was_trained_on_and_others(tmp_path, monkeypatch):
    monkeypatch.setattr("bench.reasons.MOST_IMAGES", 40)
    found = measure(write_checkpoint(tmp_path, dataset="digits"), DATA)
    assert found["train"]["images"] == found["val"]["images"] == 40
    for split in ("train", "val"):
        assert 0 <= found[split]["upright"] <= 1
        assert 0 <= found[split]["turned"] <= 1
    assert 0 <= found["changes"]["changed"] <= 1


def test_arms_are_of_the_sweeps_and_pairs_of_the_arms():
    for file, names in FILES.items():
        sweep = read_sweep(ROOT / "bench" / f"{file}.toml")
        assert all(sweep.arm(name) for name in names)
    assert {name for pair in PAIRS for name in pair} <= {n for arms in FILES.values() for n in arms}


def test_what_was_asked_stays_where_networks_are_gone(tmp_path, monkeypatch):
    monkeypatch.setattr("bench.reasons.RESULTS_DIR", tmp_path)
    monkeypatch.setattr("bench.harness.RESULTS_DIR", tmp_path)
    before = {"datasets": {"digits": {"sre": {"9": network(0.5, 0.4)}}}}
    (tmp_path / "reasons.json").write_text(json.dumps(before), encoding="utf-8")
    assert main(["--folder", str(tmp_path / "none")]) == 0
    after = json.loads((tmp_path / "reasons.json").read_text("utf-8"))
    assert after["datasets"] == before["datasets"]


def network(train: float, val: float, *, moved: float = 0.1, unsure: float | None = 1.0) -> dict:
    return {
        "width": 32,
        "train": {"images": 9, "upright": train, "turned": train},
        "val": {"images": 9, "upright": val, "turned": val},
        "changes": {
            "changed": 0.1, "of_unsure": unsure, "stays_if_sure": 0.99, "moved": moved,
            "lead": 0.5, "wrong": 0.5,
        },
    }  # fmt: skip


def test_readme_answers_from_the_figures():
    ours, theirs = PAIRS[0]
    found = {
        "images": 500, "angles_deg": [0, 30], "unsure": 0.25, "processor": "a", "date": "b",
        "titles": {ours: "Ours", theirs: "Theirs"},
        "datasets": {
            "cells": {
                ours: {
                    "1": network(0.8, 0.7, moved=0.2),
                    "2": network(0.9, 0.8, unsure=0.5),
                    "3": network(0.1, 0.9),
                },
                theirs: {"1": network(0.9, 0.9, unsure=None), "2": network(0.9, 0.9, unsure=None)},
            },
            "digits": {ours: {"1": network(0.7, 0.7, unsure=None)}},
        },
    }  # fmt: skip
    text = reasons(found)
    assert "on 1 of 1 sets, in points: `cells` -5.0" in text
    assert "less than the CNN's on 0 of 1: `cells` +10.0" in text
    assert "50 to 100 % of the changes" in text
    assert "(of the CNN's none)" in text
    assert "stay at 99.0 % of the angles" in text
    assert "as the CNN's: `cells` 1.50" in text
    assert "| `cells` | Ours | 32 | 3 | 60.0 |" in text
    assert (
        "| `digits` | Ours | 32 | 1 | 70.0 | 70.0 | 70.0 | 70.0 | 10.0 | 50.0 | 10.0 | no change |"
        in text
    )


def test_readme_says_that_nothing_was_asked():
    assert reasons(None) == NONE
