import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
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
    with pytest.raises(SettingError, match=r"at far:1: ConnectionError: nobody there; see to "):
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


@pytest.fixture
def cluster() -> Iterator[tuple[str, dict[str, str]]]:
    """A cluster of one machine, which asks for a token: its address, and what to set."""
    program = shutil.which("ray", path=str(Path(sys.executable).parent)) or "ray"
    asks = os.environ | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    asks |= {"RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    begin = [program, "start", "--head", "--block", "--port", port, "--num-cpus", "2"]
    begin += ["--object-store-memory", "100000000", "--include-dashboard=false"]
    # Stopped by its process, as `ray stop` would stop every cluster of this machine.
    with subprocess.Popen(
        begin, env=asks, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT
    ) as head:
        try:
            wait_for(int(port))
            yield f"127.0.0.1:{port}", asks
        finally:
            head.terminate()


def wait_for(port: int, patience_s: float = 60) -> None:
    end = time.monotonic() + patience_s
    while time.monotonic() < end:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.2)
    raise TimeoutError(f"nobody answers on port {port}")


@pytest.mark.slow
def test_runs_go_through_a_cluster(tmp_path, cluster):
    (tmp_path / "tiny.toml").write_text(FILE)
    np.savez(tmp_path / "breastmnist.npz", **breast())
    address, asks = cluster
    command = [
        sys.executable,
        "-m",
        "sre",
        "sweep",
        str(tmp_path / "tiny.toml"),
        "--address",
        address,
    ]
    command += ["--output", str(tmp_path / "output"), "--data-dir", str(tmp_path)]
    done = subprocess.run(
        command, cwd=ROOT, env=asks, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "\n2 runs done, 0 were there" in done.stdout
    stems = [path.stem for path in sorted((tmp_path / "output").glob("*.safetensors"))]
    assert stems == ["breastmnist-plain-w1-s1", "breastmnist-plain-w1-s2"]


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
