"""The comparison on volumes: turns, training and figures, on few and small ones."""

import json
from dataclasses import asdict

import numpy as np
import pytest
import torch
from torch import nn

from bench import volumes
from bench.readme_volumes import NONE, NOT_MEASURED, claim
from bench.readme_volumes import volumes as told_of
from bench.volumes import POSES, Said, Settings, ask, move, seen, summarise, turns_of
from sre.data.split import Split
from sre.models import build_model
from sre.symmetry import rotate_volume

SMALL = Settings(width=1, epochs=1, batch_size=3)


def some(count: int, side: int = 24) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, side, side, side), np.uint8)


def split(count: int) -> Split:
    return Split(some(count), np.arange(count) % 2)


def test_turns_are_turns():
    found = turns_of(torch.randn(50, 4, dtype=torch.float64))
    unit = torch.eye(3, dtype=torch.float64).expand(50, 3, 3)
    torch.testing.assert_close(found @ found.mT, unit)
    torch.testing.assert_close(torch.linalg.det(found), torch.ones(50, dtype=torch.float64))
    assert found.mean(0).abs().max() < 0.4  # they go every way


def test_volumes_are_moved_by_as_much_as_is_asked():
    volume = torch.rand(2, 1, 24, 24, 24)
    still, generator = Settings(scale=0, shift=0), torch.Generator().manual_seed(1)
    torch.testing.assert_close(move(volume, still, generator, rotate=False), volume)
    turned = move(volume, still, generator, rotate=True)
    assert (turned - volume).abs().mean() > 0.1
    # Both kinds draw the same scalings and shifts, so that they see the same volumes otherwise.
    states = []
    for rotate in (False, True):
        generator = torch.Generator().manual_seed(1)
        move(volume, Settings(), generator, rotate=rotate)
        states.append(generator.get_state())
    assert torch.equal(*states)


def test_a_network_sees_the_ball_alone():
    shown = seen(np.full((1, 24, 24, 24), 255, np.uint8))
    assert shown[0, 0, 0, 0, 0] == -1
    assert shown[0, 0, 12, 12, 12] == 1
    turned = seen(some(1), axis=1, angle_deg=90)
    torch.testing.assert_close(turned, rotate_volume(seen(some(1)), angle_deg=90, axis=1))


@pytest.mark.parametrize(("model", "is_exact"), [("sre_r3d_18", True), ("r3d_18", False)])
def test_quarter_turns_are_left_out_only_where_they_change_nothing(model, is_exact):
    torch.manual_seed(0)
    network = build_model(model, in_channels=1, num_classes=2, width=1).eval()
    few = some(3)
    with torch.no_grad():
        network(seen(few))
    decided, found = ask(network, few)
    assert found == is_exact
    assert decided.shape == (len(POSES), 3)
    for place in (0, 5, 14, 33):  # asked one by one, all poses are as told
        axis, angle = POSES[place]
        with torch.no_grad():
            logits = network(seen(few, axis=axis, angle_deg=angle))
        assert decided[place].tolist() == logits.argmax(1).tolist()


def said(decided: list[list[int]], seed: int = 1) -> Said:
    facts = {
        "seed": seed, "settings": asdict(Settings()), "parameters": 10, "multiply_adds": 2_000_000,
        "seconds": 5.0, "created": "2026-01-02",
    }  # fmt: skip
    return Said(facts, np.array(decided))


def test_figures_are_those_of_paper_and_pencil():
    labels = np.array([0, 1, 0, 1])
    known = {
        "sre": {1: said([[0, 1, 0, 0], [0, 1, 0, 0]])},
        "plain": {1: said([[0, 1, 0, 1], [1, 1, 1, 1]]), 2: said([[0, 0, 0, 0]] * 2, 2)},
        "plain-rotated": {},
    }
    found = summarise(known, labels, Settings())
    assert list(found["arms"]) == ["sre", "plain"]
    sre, plain = found["arms"].values()
    assert [sre[n]["value"] for n in ("accuracy_at_0", "accuracy_mean", "consistency")] == [
        0.75, 0.75, 1.0,
    ]  # fmt: skip
    assert plain["accuracy_at_0"]["value"] == (1 + 0.5) / 2
    assert plain["accuracy_mean"]["value"] == (0.75 + 0.5) / 2
    assert plain["accuracy_worst"]["value"] == 0.5
    assert plain["consistency"]["value"] == (0.75 + 1) / 2
    [pair] = found["pairs"]
    assert (pair["seeds"], pair["mean"]["value"], pair["upright"]["value"]) == ([1], 0.0, -0.25)
    assert 0 < pair["upright_p"] <= 1
    text = told_of(found | {"processor": "a machine"})
    assert "| SRE | 1 | 75.0 (" in text
    assert "SRE less CNN: over all poses +0.0 (" in text
    json.dumps(found)


def measured(low: float, high: float) -> dict:
    pair = {"value": (low + high) / 2, "low": low, "high": high}
    arms = {"sre": {"title": "SRE"}, "plain": {"title": "CNN"}}
    pairs = [{"first": "sre", "second": "plain", "mean": pair, "upright": pair}]
    return {"dataset": "adrenalmnist3d", "arms": arms, "pairs": pairs}


def test_the_verdict_follows_the_interval():
    assert claim(measured(0.01, 0.03))[0] == "holds, on one set"
    assert claim(measured(-0.01, 0.03))[0] == "undecided, on one set"
    assert claim(measured(-0.03, -0.01))[0] == "does not hold"
    assert "+2.0 (+1.0 to +3.0)" in claim(measured(0.01, 0.03))[1]
    assert claim(None) == claim(measured(0, 1) | {"pairs": []}) == NOT_MEASURED
    assert told_of(None) == NONE


def test_runs_are_made_once_and_told_by_their_settings(tmp_path, monkeypatch):
    splits = {"train": split(6), "val": split(3), "test": split(4)}
    monkeypatch.setattr(volumes, "load_split", lambda _, name, **__: splits[name])
    written = []
    monkeypatch.setattr(volumes, "write_results", lambda _, found: written.append(found))
    command = ["--runs", str(tmp_path), "--threads", "1", "--width", "1", "--epochs", "1"]
    assert volumes.main([*command, "--arms", "sre", "plain"]) == 0
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == [
        "adrenalmnist3d-plain-w1-s1.safetensors", "adrenalmnist3d-sre-w1-s1.safetensors",
    ]  # fmt: skip
    monkeypatch.setattr(volumes, "make_run", None)  # none is made again
    assert volumes.main([*command, "--arms", "sre", "plain"]) == 0
    assert written[0]["arms"] == written[1]["arms"]
    assert written[0]["arms"]["sre"]["runs"][0]["is_exact"]
    assert written[0]["images"] == 4
    with pytest.raises(TypeError):
        volumes.main([*command, "--arms", "sre", "--learning-rate", "0.1"])  # another run


def test_training_lowers_the_loss():
    torch.manual_seed(0)
    network = build_model("r3d_18", in_channels=1, num_classes=2, width=1)
    dark, bright = np.zeros((4, 24, 24, 24), np.uint8), np.full((4, 24, 24, 24), 255, np.uint8)
    data = Split(np.concatenate([dark, bright]), np.array([0] * 4 + [1] * 4))
    settings = Settings(epochs=8, batch_size=4, learning_rate=0.01)
    labels = torch.tensor(data.labels)

    def loss() -> float:
        with torch.no_grad():
            return nn.functional.cross_entropy(network(seen(data.images)), labels).item()

    network.train()
    before = loss()
    arm = volumes.ARMS["plain"]
    assert list(volumes.train(network, arm, 1, settings, data)) == list(range(1, 9))
    assert loss() < before / 2


def test_missing_data_is_one_sentence(tmp_path, capsys):
    assert volumes.main(["--data-dir", str(tmp_path), "--runs", str(tmp_path)]) == 2
    assert "adrenalmnist3d.npz is not there" in capsys.readouterr().err
