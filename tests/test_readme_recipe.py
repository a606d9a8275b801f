"""What the README says of the recipe follows the figures, for better and for worse."""

from pathlib import Path

import pytest

from bench.readme_recipe import NONE, recipe
from bench.recipe import compare
from sre.studies.sweep_file import read_sweep
from tests.networks import write_checkpoint

ARMS = {"sre": "SRE", "plain": "CNN", "sre-balanced": "SRE, balanced", "plain-fast": "CNN, fast"}


def arm(mean: float) -> dict[str, object]:
    shares = {"accuracy_at_0": mean + 0.01, "accuracy_mean": mean, "accuracy_worst": mean - 0.01}
    return {"seeds": [1], "consistency": 0.5, "parameters": 12_345, **shares}


def found(balanced: float) -> dict[str, object]:
    means = {"sre": 0.8, "plain": 0.7, "sre-balanced": balanced, "plain-fast": 0.75}
    return {"arms": ARMS, "datasets": {"digits": {name: arm(m) for name, m in means.items()}}}


@pytest.mark.parametrize(("balanced", "better", "points"), [(0.82, 1, "+2.0"), (0.7, 0, "-10.0")])
def test_the_words_follow_the_figures(balanced, better, points):
    text = recipe(found(balanced))
    assert (
        f"Against the usual training, balanced SRE is more accurate over all angles on {better} of "
        f"1 validation sets (points: `digits` {points})."
    ) in text
    assert "| `digits` | SRE | 1 | 81.0 | 80.0 | 79.0 | 50.0 | 12,345 |" in text


def test_without_runs_it_says_so():
    assert recipe(None) == recipe({"datasets": {}}) == NONE


def test_only_whole_comparisons_count(tmp_path):
    figures = {name: 0.5 for name in ("accuracy_at_0", "accuracy_mean", "accuracy_worst")}
    settings = {"validation": figures | {"consistency": 0.5, "images": 9}, "width": 1}
    runs = [r for f in ("accuracy", "recipe") for r in read_sweep_of(f) if r.config.seed == 1]
    wanted = [r for r in runs if r.arm in {"sre", "gmr", "plain", "sre-balanced", "plain-fast"}]
    for run in wanted:
        if run.dataset == "breastmnist" or run.arm == "sre":
            write_checkpoint(tmp_path, **settings).rename(tmp_path / run.file_name)
    compared = compare(tmp_path)
    assert list(compared["datasets"]) == ["breastmnist"]
    assert compared["datasets"]["breastmnist"]["gmr"]["accuracy_mean"] == 0.5
    assert compared["datasets"]["breastmnist"]["sre"]["seeds"] == [1]


def read_sweep_of(name: str):
    return read_sweep(Path(__file__).parents[1] / "bench" / f"{name}.toml").runs()
