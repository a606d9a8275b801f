"""The comparison of accuracies: what is summed up, and how sure it is."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench import accuracy, harness
from bench.accuracy import Answers, areas_of, compare, dataset_figures, earlier_times, main
from bench.runs import Said
from sre.data.split import Split
from sre.data.store import file_md5
from sre.data.table import find_dataset
from sre.statistics import bootstrap_weights
from sre.studies.sweep import Arm
from sre.studies.sweep_file import read_sweep
from sre.studies.sweep_run import Done, run_sweep
from tests.data.files import breast
from tests.networks import CARD

SWEEP = """
seeds = [1, 2]
width = 2

[datasets.breastmnist]
epochs = 1

[[arms]]
name = "sre"
model = "sre_resnet18"

[[arms]]
name = "plain"
model = "resnet18"

[[arms]]
name = "averaged"
averages = "plain"
turns = 2
"""

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
    cards = tuple(CARD for _ in rights)
    seeds = tuple(range(1, len(rights) + 1))
    areas = np.array([areas_of(one, LABELS) for one in chances])
    same = np.ones_like(right, float)
    return Answers(arm, sweep, seeds, cards, right.astype(float), same, areas)


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
    folders = [f"--{name}={tmp_path}" for name in ("folder", "data-dir", "runs")]
    assert main([*folders, "--width", "7"]) == 1
    assert "recipe.toml is done in" in capsys.readouterr().out


def test_what_networks_said_outlives_their_checkpoints(tmp_path, monkeypatch):
    monkeypatch.setattr(harness, "RESULTS_DIR", tmp_path)
    monkeypatch.setattr(accuracy, "RESULTS_DIR", tmp_path)
    file, folder = tmp_path / "tiny.toml", tmp_path / "checkpoints"
    file.write_text(SWEEP, encoding="utf-8")
    np.savez(tmp_path / "breastmnist.npz", **breast(test=24))
    folders = {"folder": folder, "data-dir": tmp_path, "runs": tmp_path / "runs"}
    folders["keep-dir"] = tmp_path / "answers"

    def train(seed: int) -> None:
        runs = read_sweep(file).part(seeds=[seed]).runs()
        settings = {"data_dir": tmp_path, "output": folder, "device": "cpu"}
        assert sum(isinstance(event, Done) for event in run_sweep(runs, **settings)) == 2

    def compared(*flags: str) -> dict:
        given = [f"--{name}={path}" for name, path in folders.items()]
        assert main([*given, "--files", str(file), *flags]) == 0
        return json.loads((tmp_path / "accuracy-tiny.json").read_text(encoding="utf-8"))

    train(1)
    first = compared("--time")
    arms = first["datasets"]["breastmnist"]["arms"]
    assert {name: arm["seeds"] for name, arm in arms.items()} == {
        "sre": [1], "plain": [1], "averaged": [1],
    }  # fmt: skip
    assert set(first["time"]["seconds"]["breastmnist"]) == set(arms)
    for path in folder.iterdir():
        path.unlink()
    again = compared()
    assert again["datasets"] == first["datasets"]
    train(2)
    both = compared()["datasets"]["breastmnist"]
    assert {tuple(arm["seeds"]) for arm in both["arms"].values()} == {(1, 2)}
    assert both["arms"]["sre"]["runs"][0] == arms["sre"]["runs"][0]
    assert both["pairs"][0]["seeds"] == [1, 2]
    # Runs of other settings are not those that are asked for.
    for path in folder.iterdir():
        path.unlink()
    file.write_text(SWEEP.replace("epochs = 1", "epochs = 2"), encoding="utf-8")
    given = [f"--{name}={path}" for name, path in folders.items()]
    assert main([*given, "--files", str(file)]) == 1


def test_results_of_other_sweeps_and_widths_have_names_of_their_own():
    assert accuracy.named(accuracy.FILES, None) == ("accuracy", "python -m bench.accuracy")
    assert accuracy.named(accuracy.FILES, 16) == (
        "accuracy-w16", "python -m bench.accuracy --width 16",
    )  # fmt: skip
    assert accuracy.named([Path("bench/fine.toml")], None) == (
        "accuracy-fine", "python -m bench.accuracy --files bench/fine.toml",
    )  # fmt: skip


def test_kept_answers_of_other_images_are_not_used(tmp_path, data):
    md5 = file_md5(find_dataset("digits"), data_dir=tmp_path) or ""
    said = Said(
        replace(CARD, dataset_md5=md5),
        np.zeros((ANGLES, IMAGES)),
        np.zeros(1 + accuracy.AREA_RESAMPLES),
    )
    assert accuracy.fits(said, data, "digits", tmp_path)
    fewer = Split(data.images[1:], data.labels[1:])
    assert not accuracy.fits(said, fewer, "digits", tmp_path)
    others = replace(said, card=replace(CARD, dataset_md5="of another file"))
    assert not accuracy.fits(others, data, "digits", tmp_path)
    assert not accuracy.fits(replace(said, areas=np.zeros(7)), data, "digits", tmp_path)


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
