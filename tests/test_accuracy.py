"""The comparison of accuracies: what is summed up, and how sure it is."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from bench import accuracy
from bench.accuracy import Answers, compare, dataset_figures, earlier_times, main
from sre.data.split import Split
from sre.statistics import bootstrap_weights
from sre.studies.sweep import Arm
from tests.networks import CARD

IMAGES, ANGLES = 40, len(accuracy.ANGLES_DEG)
LABELS = np.arange(IMAGES) % 10


def answers(
    name: str,
    *rights: float,
    model: str = "resnet18",
    sweep: str = "accuracy",
    **settings: object,
) -> Answers:
    """Answers of one network a seed, right about the first so many images whatever the angle."""
    arm = Arm(**{"name": name, "title": name.upper(), "model": model, "rotate": False, "width": 4,
                 "kernel_sizes": (9, 9, 5, 5), **settings})  # fmt: skip
    right = np.stack([np.tile(np.arange(IMAGES) < r * IMAGES, (ANGLES, 1)) for r in rights])
    chances = np.random.default_rng(0).random((len(rights), IMAGES, 10))
    who = tuple(SimpleNamespace(card=CARD) for _ in rights)
    seeds = tuple(range(1, len(rights) + 1))
    return Answers(arm, sweep, who, seeds, right.astype(float), np.ones_like(right, float), chances)


@pytest.fixture
def data() -> Split:
    return Split(np.zeros((IMAGES, 28, 28), np.uint8), LABELS)


def test_figures_are_means_over_seeds_with_intervals_of_images_and_seeds(data):
    found = dataset_figures("digits", data, [answers("sre", 0.5, 0.7), answers("plain", 0.9)])
    arm = found["arms"]["sre"]
    assert arm["seeds"] == (1, 2)
    for figure in ("accuracy_at_0", "accuracy_mean", "accuracy_worst"):
        assert arm[figure]["value"] == pytest.approx(0.6)
        assert arm[figure]["low"] < 0.5  # one seed may be drawn twice
        assert arm[figure]["high"] > 0.7
    assert arm["consistency"] == {"value": 1, "low": 1, "high": 1}
    assert len(arm["accuracy_by_angle"]) == ANGLES
    assert (arm["parameters"], arm["multiply_adds"]) == (CARD.parameters, CARD.multiply_adds)
    assert [run["command"] for run in arm["runs"]] == [CARD.command] * 2
    assert json.dumps(found)


def test_an_average_costs_as_many_times(data):
    averaged = answers("averaged", 0.5, averages="plain", turns=8)
    found = dataset_figures("digits", data, [averaged])
    assert found["arms"]["averaged"]["multiply_adds"] == 8 * CARD.multiply_adds


def test_the_first_arm_and_the_plain_one_are_compared_with_all(data):
    arms = [answers("sre", 0.5, model="sre_resnet18"), answers("plain", 0.5), answers("x", 0.5)]
    pairs = dataset_figures("digits", data, arms)["pairs"]
    named = [(pair["first"], pair["second"]) for pair in pairs]
    assert named == [("sre", "plain"), ("sre", "x"), ("plain", "x")]


def test_the_recipes_radial_arms_are_compared_with_all_too(data):
    arms = [
        answers("sre", 0.5, model="sre_resnet18"),
        answers("plain", 0.5),
        answers("tuned", 0.5, model="sre_resnet18", sweep="recipe"),
        answers("fast", 0.5, sweep="recipe"),
    ]
    pairs = dataset_figures("digits", data, arms)["pairs"]
    assert [pair["second"] for pair in pairs if pair["first"] == "tuned"] == ["fast"]
    assert len(pairs) == 3 + 2 + 1


def test_a_difference_is_of_the_seeds_that_both_have():
    weights = bootstrap_weights(IMAGES, resamples=200)
    pair = compare(answers("sre", 0.5, 0.1), answers("plain", 0.9), weights)
    assert pair["seeds"] == [1]
    for name in ("upright", "mean"):
        assert pair[name]["value"] == pytest.approx(-0.4)
        assert pair[name]["low"] < -0.4 < pair[name]["high"] < 0
        assert pair[f"{name}_p"] < 0.001


def test_where_no_run_is_done_it_says_so(tmp_path, capsys):
    assert main(["--folder", str(tmp_path), "--data-dir", str(tmp_path)]) == 1
    assert "recipe.toml is done in" in capsys.readouterr().out


def test_a_wrong_file_is_one_sentence(tmp_path, capsys):
    assert main(["--files", str(tmp_path / "x.toml")]) == 2
    assert capsys.readouterr().err.startswith("error: cannot read ")


def test_sweeps_with_arms_of_one_name_are_refused(capsys):
    file = str(accuracy.FILES[0])
    assert main(["--files", file, file]) == 2
    line = "error: sweeps that are compared must have files and arms of different names\n"
    assert capsys.readouterr().err == line


def test_earlier_times_stay_for_networks_of_the_same_cost(data):
    def results(*names: str, **settings: object) -> dict:
        return {
            "digits": dataset_figures("digits", data, [answers(n, 1, **settings) for n in names])
        }

    now, taken = results("sre", "plain"), {"median": 0.001}
    time = {"images": 64, "seconds": {"digits": {"sre": taken, "gone": taken}}}
    earlier = {"time": time, "datasets": now}
    assert earlier_times(now, None) is None
    assert earlier_times(now, earlier | {"time": None}) is None
    assert earlier_times(now, earlier) == {"images": 64, "seconds": {"digits": {"sre": taken}}}
    wider = results("sre", averages="plain", turns=2)
    assert earlier_times(wider, earlier) == {"images": 64, "seconds": {}}
