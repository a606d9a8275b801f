"""The levers tried on the recipe: what each changes, and what the README makes of the figures."""

import json
from dataclasses import replace
from math import sqrt

import pytest
import torch
from torch import nn

from bench.harness import ROOT
from bench.levers import (
    LEVERS,
    RECIPE,
    RIVAL,
    SETS,
    WIDTH,
    collect,
    radial_layers,
    run_once,
)
from bench.readme_levers import NONE, levers
from bench.recipe import FIGURES
from sre.home import DATA
from sre.models import build_model
from sre.studies.sweep import Sweep
from sre.studies.sweep_file import read_sweep
from tests.networks import write_checkpoint


@pytest.fixture
def sweep() -> Sweep:
    return read_sweep(ROOT / "bench" / "recipe.toml", width=WIDTH)


def network() -> nn.Module:
    torch.manual_seed(0)
    return build_model(
        "sre_resnet18", in_channels=1, num_classes=3, width=4, kernel_sizes=(5, 5, 3, 3)
    ).eval()


@pytest.mark.parametrize("name", LEVERS)
def test_no_lever_costs_the_invariance_to_quarter_turns(name):
    model, x = network(), torch.randn(2, 1, 28, 28)
    LEVERS[name].network(model)
    found = model(x)
    for turned in (x.rot90(1, (-2, -1)), x.flip(-1)):
        torch.testing.assert_close(model(turned), found, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["bands-fade", "bands-split", "mask-stages"])
def test_a_lever_on_the_network_changes_what_it_computes(name):
    model, x = network(), torch.randn(2, 1, 28, 28)
    before = model(x)
    LEVERS[name].network(model)
    assert (model(x) - before).abs().max() > 1e-3


def test_fading_bands_share_every_pixel_that_they_reach():
    model = network()
    LEVERS["bands-fade"].network(model)
    (masks,) = {tuple(m.masks.flatten().tolist()) for m in radial_layers(model.stage4)}
    middle, ring = torch.tensor(masks).view(2, 3, 3)
    assert middle.tolist() == [[0, 0, 0], [0, 1, 0], [0, 0, 0]]
    assert ring[0].tolist() == pytest.approx([2 - sqrt(2), 1, 2 - sqrt(2)])


def test_split_bands_have_a_weight_for_each_distance():
    model = network()
    LEVERS["bands-split"].network(model)
    assert [layer.weight.shape[-1] for layer in radial_layers(model.stage1)] == [5] * 4
    assert [layer.weight.shape[-1] for layer in radial_layers(model.stage4)] == [3] * 4
    for layer in radial_layers(model):
        side = layer.kernel_size[0]
        assert int(layer.masks.sum()) == (9 if side == 3 else 21)  # as the bands: no far corners


def test_settings_that_levers_change(sweep):
    arm, config = sweep.arm(RECIPE), sweep.configs["digits"]
    changed = {n: (lever.arm(arm), lever.config(config)) for n, lever in LEVERS.items()}
    assert changed["width-28"][0] == replace(arm, width=28)
    assert changed["kernels-7"][0].kernel_sizes == (7, 7, 5, 5)
    assert changed["epochs-2"][1].epochs == 2 * config.epochs
    assert changed["epochs-2-rival"][1] == changed["epochs-2"][1]
    assert changed["fine-blur"][1].side_px == 42
    assert changed["blur-pools"] == (replace(arm, blur_pools=True), config)


def test_a_run_is_made_once(sweep, tmp_path):
    run = sweep.run_of("digits", replace(sweep.arm(RECIPE), width=1), seed=1)
    run = replace(run, config=replace(run.config, epochs=1, batch_size=512))
    path = tmp_path / "digits-blur-pools-s1.json"
    run_once(path, run, LEVERS["blur-pools"], DATA)
    found = json.loads(path.read_text("utf-8"))
    assert found["images"] == 200
    assert found["parameters"] > 0 < found["seconds"]
    assert all(0 <= found[name] <= 1 for name in FIGURES)
    path.write_text("{}", encoding="utf-8")
    run_once(path, run, LEVERS["blur-pools"], DATA)
    assert path.read_text("utf-8") == "{}"
    assert {p.suffix for p in tmp_path.iterdir()} <= {".json", ".lock"}


def test_what_is_there_is_collected(sweep, tmp_path):
    figures = dict.fromkeys(FIGURES, 0.5)
    for arm in (RECIPE, RIVAL, "sre-fine"):
        run = sweep.run_of("digits", sweep.arm(arm), 2)
        card = {"validation": figures | {"images": 9}, "width": 1}
        write_checkpoint(tmp_path, **card).rename(tmp_path / run.file_name)
    (tmp_path / "levers").mkdir()
    tried = tmp_path / "levers" / "digits-kernels-7-s2.json"
    tried.write_text(json.dumps(figures), encoding="utf-8")
    gone, old = {"1": {"accuracy_mean": 0.1}}, {"2": {"accuracy_mean": 0.1}}
    found = collect(sweep, tmp_path, {"digits": {"bands-fade": gone, "kernels-7": old}})
    assert set(found["datasets"]) == set(SETS)
    digits = found["datasets"]["digits"]
    assert set(digits) == {RECIPE, RIVAL, "sre-fine", "kernels-7", "bands-fade"}
    assert digits["kernels-7"] == {"2": figures}  # not that of the earlier file
    assert digits["bands-fade"] == gone
    assert {*found["levers"], *found["rivals"]} == {"sre-fine", *LEVERS}
    assert list(found["rivals"]) == ["epochs-2-rival"]
    assert digits[RECIPE]["2"]["accuracy_mean"] == 0.5
    assert found["datasets"]["breastmnist"] == {}


def run_of(mean: float, consistency: float = 0.9) -> dict[str, float]:
    counts = {"parameters": 1_234, "multiply_adds": 5_600_000}
    return {"accuracy_mean": mean, "consistency": consistency, **counts}


def made(**tried: dict[str, float]) -> dict[str, object]:
    arms = {RECIPE: run_of(0.8), RIVAL: run_of(0.85), **tried}
    by_seed = {name: {"1": figures, "2": figures} for name, figures in arms.items()}
    by_seed[RECIPE] = {"1": run_of(0.8), "2": run_of(0.82), "3": run_of(0.1)}
    by_seed["late"] = {"1": run_of(0.805)}  # of one seed yet
    titles = {"a": "wider", "b": "longer", "late": "late", "part": "part"}
    only_here = {"digits": by_seed | {"part": {"1": run_of(0.99)}}, "breastmnist": by_seed}
    return {"recipe": RECIPE, "rival": RIVAL, "levers": titles, "datasets": only_here}


def test_the_words_follow_the_figures():
    text = levers(made(a=run_of(0.86, 0.995), b=run_of(0.79)))
    assert "| wider | 2 | 86.0 | 86.0 | +5.0 | 99.5 | 1,234 | 5.6 M |" in text
    assert "| longer | 2 | 79.0 | 79.0 | -2.0 | 90.0 | 1,234 | 5.6 M |" in text
    assert "| late | 1 | 80.5 | 80.5 | +0.5 | 90.0 |" in text  # against the recipe of that seed
    assert "| Nothing: the recipe | 2 | 81.0 | 81.0 |  | 90.0 |" in text
    assert "part" not in text  # not tried on every set
    assert "on average: wider; late. A consistency of 0.99 or more on every set: wider." in text
    assert "most of these sets: wider." in text
    granted = made(a=run_of(0.86, 0.995), b=run_of(0.79), **{"a-rival": run_of(0.87)})
    granted["rivals"] = {"a-rival": "CNN, wider"}
    text = levers(granted)
    assert "| CNN, wider | 2 | 87.0 | 87.0 |  | 90.0 |" in text
    assert text.endswith("on most of these sets: none.\n")  # though it is above the usual one
    text = levers(made(a=run_of(0.8), b=run_of(0.79)))
    assert "on average: late. A consistency of 0.99 or more on every set: none. Above" in text
    assert "most of these sets: none." in text


def test_without_runs_it_says_so():
    nothing = made()
    nothing["datasets"] = {"digits": {}}
    assert levers(None) == levers(nothing) == NONE
