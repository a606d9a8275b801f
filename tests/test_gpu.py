"""The benchmark for GPUs, tried on a CPU: what it measures is there, and nothing is made up."""

import json

import pytest
import torch

from bench import gpu, harness


@pytest.mark.slow
def test_every_task_and_precision_is_measured(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(harness, "RESULTS_DIR", tmp_path)
    options = ["--device", "cpu", "--rounds", "2", "--batches", "1", "--networks", "sre"]
    assert gpu.main(options) == 0
    found = json.loads((tmp_path / "gpu.json").read_text())
    settings = {(row["task"], row["precision"]) for row in found["rows"]}
    assert len(settings) == len(found["rows"]) == len(gpu.TASKS) * len(gpu.PRECISIONS)
    for row in found["rows"]:
        assert row["seconds"]["sre"]["median"] > 0
        assert not row["failed"]
        # The stem has three channels; on a CPU, halves take the dense kernel.
        assert row["layers_by_band_sums"] == (0 if row["precision"] == "bfloat16" else 16)
        assert 0 < row["shares"]["sre"]["of_multiply_adds"] < 1
    assert "Traceback" not in capsys.readouterr().out


def test_a_machine_without_a_gpu_is_told_so(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main([]) == 1
    assert "has no GPU that PyTorch can use" in capsys.readouterr().out


def test_a_network_that_fails_is_named_and_the_others_are_timed(monkeypatch):
    def refuse(name, *others):
        raise RuntimeError("out of memory\nand a long trace")

    monkeypatch.setattr(gpu, "prepare", refuse)
    row = {"task": "forward", "precision": "float32", "batch": 1}
    found = gpu.measure(["sre"], row, torch.device("cpu"), rounds=2)
    assert found["failed"] == {"sre": "out of memory"}
    assert found["seconds"] == {}


def test_the_least_to_be_moved_is_counted_by_hand():
    adds, values = gpu.demands("sre", batch=1)
    # The first stage alone: four layers of 64 maps in and out at 32 px, 5 bands of 64 x 64 weights.
    first_stage = 4 * (2 * 64 * 32**2 + 5 * 64 * 64 + 64)
    assert first_stage + 3_900_000 < values < 4 * first_stage + 3_900_000  # and the other weights
    assert adds == pytest.approx(0.25e9, rel=0.1)  # as a prototype counted them
