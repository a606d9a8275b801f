"""The benchmarks for GPUs, tried on a CPU: what they measure is there, and nothing is made up."""

import json
from dataclasses import replace

import pytest
import torch

from bench import evaluate, gpu, gpu_training, harness
from bench.training import preset_of
from sre.errors import SettingError
from sre.home import DATA


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


@pytest.fixture
def settings():
    asked = preset_of("paper", "sre_resnet18", "digits")
    return replace(asked, width=1, config=replace(asked.config, batch_size=8))


def test_a_step_is_timed_by_every_way(settings):
    found = gpu_training.measure_steps(settings, DATA, torch.device("cpu"), rounds=2)
    assert set(found["ms"]) == {*gpu_training.WAYS, "augmentation"}
    assert all(one["median"] > 0 and one["n"] == 2 for one in found["ms"].values())
    assert found["over_usual"][gpu_training.USUAL]["median"] == 1
    # Nobody counts it on a CPU.
    assert found["peak_memory_mb"] == dict.fromkeys(gpu_training.WAYS)


def test_epochs_left_are_reckoned_at_the_pace_of_the_later_ones(settings):
    found = gpu_training.measure_run(
        replace(settings, config=replace(settings.config, batch_size=256)), DATA, "cpu", 2
    )
    first, second = (epoch["seconds"] for epoch in found["told"])
    assert (found["epochs"], found["asked_epochs"]) == (2, 100)
    assert (found["first_epoch_s"], found["took_s"]) == (first, second)
    assert found["asked_s"] == pytest.approx(second + 98 * (second - first))


def test_the_preset_is_the_papers():
    asked = preset_of("paper", "resnet18", "bloodmnist")
    assert (asked.width, asked.config.epochs, asked.config.batch_size) == (64, 100, 128)


@pytest.mark.parametrize("bench", [gpu_training, evaluate])
def test_a_device_that_is_not_there_is_refused(bench):
    with pytest.raises(SettingError, match="is not on this machine"):
        bench.main(["--device", "cuda:99"])


def test_whoever_copied_the_code_says_which_it_was(monkeypatch):
    monkeypatch.setenv("SRE_BENCH_COMMIT", "1234567")
    assert harness.circumstances()["commit"] == "1234567"


def test_versions_are_those_of_what_is_there(monkeypatch):
    def version(name):
        if name == "gradio":
            raise harness.PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr(harness, "version", version)
    assert set(harness.circumstances()["versions"]) == {"torch", "numpy", "pillow", "python"}
