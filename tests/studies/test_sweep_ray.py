import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from sre.__main__ import main
from sre.errors import SettingError
from sre.settings import TrainConfig
from sre.studies.sweep import SweepRun
from sre.studies.sweep_ray import run_side_by_side
from sre.studies.sweep_run import Failed
from tests.data.files import breast

ROOT = Path(__file__).resolve().parents[2]
FILE = """
seeds = [1, 2]
width = 1
[datasets.breastmnist]
epochs = 1
batch_size = 4
[[arms]]
name = "plain"
model = "resnet18"
"""
RUN = SweepRun("digits", "plain", "resnet18", 1, (9, 9, 5, 5), TrainConfig())


class _RayError(Exception):
    pass


class _Ray(SimpleNamespace):
    """As much of Ray as one run needs, in this process."""

    exceptions = SimpleNamespace(RayError=_RayError)
    is_up = False

    def init(self, *, address: str, **_: object) -> None:
        if address == "far:1":
            raise ConnectionError("nobody there\nand more")
        self.is_up = True

    def shutdown(self) -> None:
        self.is_up = False

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 2.0}

    def remote(self, **resources: object):
        return lambda work: SimpleNamespace(remote=lambda *given: (work, given))

    def wait(self, waiting: list) -> tuple[list, list]:
        return waiting[:1], waiting[1:]

    def get(self, task: tuple) -> object:
        raise _RayError("a worker died\nlong report")


@pytest.fixture
def ray(monkeypatch) -> _Ray:
    fake = _Ray()
    monkeypatch.setitem(sys.modules, "ray", fake)
    return fake


def start(**settings: object) -> list:
    settings = {"data_dir": Path(), "output": Path(), "device": "cpu", "threads": 1, **settings}
    return list(run_side_by_side([RUN], **settings))


def test_a_run_whose_worker_died_has_failed(ray):
    assert start() == [Failed(RUN, "_RayError: a worker died")]
    assert not ray.is_up


def test_a_cluster_that_does_not_answer_is_told(ray):
    with pytest.raises(SettingError, match=r"cannot start with Ray at far:1: ConnectionError: nob"):
        start(address="far:1")


def test_more_threads_than_cores_are_refused(ray):
    with pytest.raises(SettingError, match=r"no run can have 3 threads of 2 cores; give fewer"):
        start(threads=3)
    assert not ray.is_up


def test_an_address_is_of_no_use_without_ray(tmp_path, capsys):
    file = tmp_path / "tiny.toml"
    file.write_text(FILE)
    assert main(["sweep", str(file), "--no-ray", "--address", "far:1"]) == 2
    line = "error: --address far:1 is of a cluster of Ray's; leave it or --no-ray away\n"
    assert capsys.readouterr().err == line


@pytest.mark.slow
def test_runs_go_through_ray(tmp_path):
    (tmp_path / "tiny.toml").write_text(FILE)
    np.savez(tmp_path / "breastmnist.npz", **breast())
    output = tmp_path / "output"
    output.mkdir()
    (output / "breastmnist-plain-w1-s2.safetensors").write_bytes(b"another's")
    command = [sys.executable, "-m", "sre", "sweep", str(tmp_path / "tiny.toml"), "--output"]
    command += [str(output), "--data-dir", str(tmp_path)]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "1 runs done, 0 were there, 0 are with another process, 1 failed" in done.stdout
    assert "error: breastmnist-plain-w1-s2: breastmnist-plain-w1-s2.safetensors is" in done.stderr
    assert (output / "breastmnist-plain-w1-s1.safetensors").stat().st_size > 1000
