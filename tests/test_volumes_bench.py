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
from bench.volumes import POSES, TURNED, Said, Settings, ask, move, seen, summarise, turns_of
from sre.data.split import Split
from sre.models import build_model
from sre.symmetry import rotate_volume


def some(count: int, side: int = 24) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, side, side, side), np.uint8)


def boxes(count: int) -> np.ndarray:
    """Volumes with shapes, which look another way from each side."""
    random, volumes = np.random.default_rng(0), np.zeros((count, 24, 24, 24), np.uint8)
    for volume in volumes:
        for _ in range(6):
            corner, size = random.integers(2, 16, 3), random.integers(3, 7, 3)
            volume[tuple(slice(a, a + n) for a, n in zip(corner, size, strict=True))] = 255
    return volumes


def split(count: int) -> Split:
    return Split(some(count), np.arange(count) % 2)


def test_turns_are_turns():
    found = turns_of(torch.randn(5000, 4, dtype=torch.float64))
    unit = torch.eye(3, dtype=torch.float64).expand(5000, 3, 3)
    torch.testing.assert_close(found @ found.mT, unit)
    torch.testing.assert_close(torch.linalg.det(found), torch.ones(5000, dtype=torch.float64))
    # All alike likely: their mean is 0; of any axis by any angle it would be a third of the unit.
    assert found.mean(0).abs().max() < 0.05


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
    network = build_model(model, in_channels=1, num_classes=2, width=1)
    few = boxes(3)
    with torch.no_grad():
        for norm in (m for m in network.modules() if isinstance(m, nn.BatchNorm3d)):
            norm.weight.fill_(1)  # those that begin with 0 hide what comes before
            norm.momentum = None
        network(seen(few))  # its norms get to know such volumes
    network.eval()
    scores, found = ask(network, few)
    assert found == is_exact
    assert scores.shape == (len(POSES), 3)
    # Asked one by one, all poses are as told; and they are not all the same.
    for (axis, angle), told in zip(POSES, scores, strict=True):
        with torch.no_grad():
            logits = network(seen(few, axis=axis, angle_deg=angle))
        assert told == pytest.approx(logits.softmax(1)[:, 1].numpy(), abs=1e-5)
    assert len({tuple(told.round(4)) for told in scores[TURNED]}) == (6 if is_exact else 24)


def said(decided: list[list[int]], seed: int = 1) -> Said:
    facts = {
        "seed": seed, "settings": asdict(Settings()), "parameters": 10, "multiply_adds": 2_000_000,
        "seconds": 5.0, "created": "2026-01-02", "processor": "a machine",
    }  # fmt: skip
    # Two of the poses: upright, and the first that is off the grid.
    upright, turned = np.array(decided) * 0.5 + 0.25
    return Said(facts, np.stack([turned if p in TURNED else upright for p in range(len(POSES))]))


def test_figures_are_those_of_paper_and_pencil():
    labels = np.array([0, 1, 0, 1])
    known = {
        "sre": {1: said([[0, 1, 0, 0], [0, 1, 0, 0]])},
        "plain": {1: said([[0, 1, 0, 1], [1, 1, 1, 1]]), 2: said([[0, 0, 0, 0]] * 2, 2)},
        "plain-rotated": {},
    }
    found = summarise(known, labels, Settings())
    assert found["command"] == "python -m bench.volumes --seeds 1 2"
    assert (found["largest_class"], found["turned_poses"]) == (0.5, 24)
    assert list(found["arms"]) == ["sre", "plain"]
    sre, plain = found["arms"].values()
    names = ("accuracy_at_0", "accuracy_turned", "consistency", "auc_turned")
    assert [sre[n]["value"] for n in names] == pytest.approx([0.75, 0.75, 1.0, 0.75])
    assert plain["accuracy_at_0"]["value"] == (1 + 0.5) / 2
    assert plain["accuracy_turned"]["value"] == pytest.approx((0.5 + 0.5) / 2)
    assert plain["accuracy_worst"]["value"] == 0.5
    assert plain["balanced_accuracy_turned"]["value"] == pytest.approx(0.5)
    assert plain["consistency"]["value"] == pytest.approx((0.5 + 1) / 2)
    assert plain["auc_at_0"]["value"] == (1 + 0.5) / 2
    [pair] = found["pairs"]
    assert pair["seeds"] == [1]
    assert pair["turned"]["value"] == pytest.approx(0.25)
    assert pair["upright"]["value"] == -0.25
    assert pair["auc_turned"]["value"] == pytest.approx(0.25)
    assert 0 < pair["upright_p"] <= 1
    text = told_of(found)
    assert "| SRE | 1 | 75.0 (" in text
    assert "SRE less CNN: turned +25.0 (" in text
    assert "of a single seed over volumes alone" in text
    json.dumps(found)


def measured(low: float, high: float) -> dict:
    pair = {"value": (low + high) / 2, "low": low, "high": high}
    arms = {"sre": {"title": "SRE"}, "plain": {"title": "CNN"}}
    pairs = [
        {"first": "sre", "second": "plain", "turned": pair, "upright": pair, "auc_turned": pair}
    ]
    return {"dataset": "adrenalmnist3d", "arms": arms, "pairs": pairs}


def test_the_verdict_follows_the_interval():
    assert claim(measured(0.01, 0.03))[0] == "holds, on one set"
    split_ = measured(0.01, 0.03)
    split_["pairs"][0]["auc_turned"] = {"value": 0.0, "low": -0.01, "high": 0.01}
    assert claim(split_)[0] == "undecided, on one set"  # accuracy alone is not enough
    assert claim(measured(-0.01, 0.03))[0] == "undecided, on one set"
    assert claim(measured(-0.03, -0.01))[0] == "does not hold"
    assert "+2.0 (+1.0 to +3.0)" in claim(measured(0.01, 0.03))[1]
    assert claim(None) == claim(measured(0, 1) | {"pairs": []}) == NOT_MEASURED
    assert told_of(None) == NONE


def test_runs_are_made_once_and_told_by_their_settings(tmp_path, monkeypatch, capsys):
    splits = {"train": split(6), "val": split(4), "test": split(4)}
    monkeypatch.setattr(volumes, "load_split", lambda _, name, **__: splits[name])
    monkeypatch.setattr(volumes, "file_md5", lambda *_, **__: "abc")
    monkeypatch.setattr(volumes, "write_results", None)  # of other settings nothing is written
    few = ["--runs", str(tmp_path), "--threads", "1", "--width", "1", "--epochs", "1"]
    command = [*few, "--arms", "sre", "plain"]
    assert volumes.main(command) == 0
    files = sorted(path.name for path in tmp_path.iterdir())
    settings = volumes.name_of(Settings(width=1, epochs=1))
    assert files == [
        f"adrenalmnist3d-{name}-{settings}-s1.safetensors" for name in ("plain", "sre")
    ]
    first = read_results(capsys)
    assert first["images"] == 4
    assert first["arms"]["sre"]["runs"][0]["is_exact"]
    assert not first["arms"]["plain"]["runs"][0]["is_exact"]
    real = volumes.make_run
    monkeypatch.setattr(volumes, "make_run", None)  # none is made again
    assert volumes.main(command) == 0
    assert read_results(capsys)["arms"] == first["arms"]
    for change in (["--learning-rate", "0.1"], ["--seeds", "2"]):  # another run
        with pytest.raises(TypeError):
            volumes.main([*few, "--arms", "sre", *change])
    monkeypatch.setattr(volumes, "file_md5", lambda *_, **__: "other")  # other volumes
    monkeypatch.setattr(volumes, "make_run", real)
    assert volumes.main([*few, "--arms", "sre"]) == 0
    assert list(read_results(capsys)["arms"]) == ["sre"]
    assert sorted(path.name for path in tmp_path.iterdir()) == files


def read_results(capsys) -> dict:
    text = capsys.readouterr().out
    return json.loads(text[text.index("{") :])


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
