"""What the README says of the recipe follows the figures, for better and for worse."""

from pathlib import Path

import pytest

from bench.readme_recipe import NONE, recipe
from bench.recipe import compare, share_seeds
from sre.studies.sweep_file import read_sweep
from tests.networks import write_checkpoint

ARMS = {"sre": "SRE", "plain": "CNN", "sre-small": "SRE, small", "plain-fast": "CNN, fast"}


def arm(mean: float) -> dict[str, object]:
    shares = {"accuracy_at_0": mean + 0.01, "accuracy_mean": mean, "accuracy_worst": mean - 0.01}
    return {"seeds": [1], "consistency": 0.5, "parameters": 12_345, **shares}


def found(balanced: float) -> dict[str, object]:
    means = {"sre": 0.8, "plain": 0.7, "sre-small": balanced, "plain-fast": 0.75}
    return {"arms": ARMS, "datasets": {"digits": {name: arm(m) for name, m in means.items()}}}


@pytest.mark.parametrize(("balanced", "better", "points"), [(0.82, 1, "+2.0"), (0.7, 0, "-10.0")])
def test_the_words_follow_the_figures(balanced, better, points):
    text = recipe(found(balanced))
    assert (
        "Against the usual training, SRE by the recipe is more accurate over all angles on "
        f"{better} of 1 validation sets (points: `digits` {points})."
    ) in text
    assert "| `digits` | SRE | 1 | 81.0 | 80.0 | 79.0 | 50.0 | 12,345 |" in text


def test_enlarged_images_are_compared_in_accuracy_and_consistency():
    told = found(0.8)
    of_set = told["datasets"]["digits"]
    of_set["sre-fine"] = arm(0.79) | {"consistency": 0.75}
    told["arms"] = ARMS | {"sre-fine": "SRE, enlarged"}
    text = recipe(told)
    assert "SRE by the recipe on enlarged images is more accurate over all angles on 0 of 1" in text
    assert "answers are more consistent on 1 of 1 (points: `digits` +25.0), at 75.0 % or" in text


def test_without_runs_it_says_so():
    assert recipe(None) == recipe({"datasets": {}}) == NONE


def test_what_is_there_is_compared(tmp_path):
    figures = {name: 0.5 for name in ("accuracy_at_0", "accuracy_mean", "accuracy_worst")}
    settings = {"validation": figures | {"consistency": 0.5, "images": 9}, "width": 1}
    there = {
        "breastmnist": {"sre", "sre-small", "gmr"},
        "retinamnist": {"sre", "plain"},  # without the recipe there is nothing to compare
        "bloodmnist": {"sre", "sre-small"},
    }
    for run in [*read_sweep_of("accuracy"), *read_sweep_of("recipe")]:
        if run.config.seed == 1 and run.arm in there.get(run.dataset, ()):
            undone = {"validation": {}} if run.arm == "gmr" else {}
            write_checkpoint(tmp_path, **settings | undone).rename(tmp_path / run.file_name)
    compared = compare(tmp_path, tmp_path / "runs")["datasets"]
    assert {name: set(of_set) for name, of_set in compared.items()} == {
        "bloodmnist": {"sre", "sre-small"}, "breastmnist": {"sre", "sre-small"},
    }  # fmt: skip
    assert compared["breastmnist"]["sre"]["accuracy_mean"] == 0.5
    assert compared["breastmnist"]["sre"]["seeds"] == [1]


def test_figures_are_of_the_seeds_that_both_kinds_of_sre_have():
    arms = {
        "sre": {1: "a", 2: "b"},
        "sre-small": {1: "c", 2: "d", 3: "e"},
        "plain": {1: "f", 2: "g", 3: "h"},
        "gmr": {2: "i"},  # lacks one
    }
    assert share_seeds(arms) == {
        "sre": {1: "a", 2: "b"}, "sre-small": {1: "c", 2: "d"}, "plain": {1: "f", 2: "g"},
    }  # fmt: skip
    assert share_seeds(arms | {"sre": {4: "a"}}) == {}
    assert share_seeds({"sre": {1: "a"}}) == {}


def read_sweep_of(name: str):
    return read_sweep(Path(__file__).parents[1] / "bench" / f"{name}.toml").runs()
