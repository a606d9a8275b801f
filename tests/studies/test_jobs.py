"""Training jobs: what may be asked, what is on disk, and what comes of a worker that dies."""

import errno
import json
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file

from sre.checkpoints import list_checkpoints, load_card
from sre.errors import SettingError, SREError, UnknownNameError
from sre.runstate import save_file as save
from sre.settings import TrainConfig
from sre.studies.job_queue import MOST_QUEUED, JobQueue
from sre.studies.job_settings import JobSettings
from sre.studies.jobs import Job, Status, list_jobs, make_job
from sre.studies.train_run import run_training
from sre.studies.worker import BUSY, LOCK, _Recorder, work
from tests.data.files import breast

REQUEST = {
    "dataset": "breastmnist", "model": "resnet18", "width": 1, "kernel_sizes": [5, 5, 3, 3],
    "blur_pools": False, "minutes": None, "epochs": 3, "batch_size": 4, "learning_rate": 2e-3,
    "rotate": False,
    "protocol": "disc", "seed": 5, "scale": 0.1, "shift": 0.1, "mask_rate": 0.5, "balance": False,
    "side_px": 28,
}  # fmt: skip
SETTINGS = JobSettings.from_request(REQUEST)
WAIT_S = 120


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """A data folder with a BreastMNIST of twelve images."""
    made = tmp_path_factory.mktemp("data")
    np.savez(made / "breastmnist.npz", **breast())
    return made


@pytest.fixture
def queue(tmp_path, data, monkeypatch) -> JobQueue:
    """A queue that starts no process: the test is the worker."""
    monkeypatch.setattr(JobQueue, "pump", lambda self: None)
    return JobQueue(tmp_path / "jobs", data, tmp_path / "trained")


def run(queue: JobQueue, job: Job) -> int:
    return work(job.folder, data_dir=queue.data_dir, output=queue.output, device="cpu")


def kinds(job: Job) -> list[str]:
    return [event["kind"] for event in job.events()[0]]


def unbroken(folder: Path, data: Path, **changes: object) -> dict[str, torch.Tensor]:
    """Weights of the same run, without jobs."""
    config = replace(SETTINGS.config, **changes)
    events = run_training(
        "breastmnist", "resnet18", config=config, width=1, kernel_sizes=(5, 5, 3, 3),
        data_dir=data, output=folder, device="cpu", command="",
    )  # fmt: skip
    return load_file(list(events)[-1].path)


@pytest.fixture(scope="module")
def wanted(tmp_path_factory, data) -> dict[str, torch.Tensor]:
    """Weights of the run of SETTINGS that nothing interrupts."""
    return unbroken(tmp_path_factory.mktemp("whole"), data)


def assert_same(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


# what may be asked


def test_settings_there_and_back():
    assert SETTINGS.config == TrainConfig(epochs=3, batch_size=4, seed=5)
    assert SETTINGS.to_request() == REQUEST
    assert JobSettings.from_request(json.loads(json.dumps(SETTINGS.to_request()))) == SETTINGS
    assert SETTINGS.command() == (
        "python -m sre train breastmnist resnet18 --width 1 --kernel-sizes 5,5,3,3 --epochs 3 "
        "--batch-size 4 --seed 5"
    )
    more = JobSettings.from_request(REQUEST | {"rotate": True, "minutes": 2})
    assert more.command().endswith("--rotate --seed 5 --minutes 2")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dataset": "nonsense"}, "unknown data set 'nonsense'"),
        ({"dataset": "organmnist3d"}, "holds volumes, and training here takes images"),
        ({"dataset": 3}, "dataset must be a text, got '3'"),
        ({"dataset": "x" * 101}, "dataset must be a text of at most 100 characters"),
        ({"model": "resnet19"}, "unknown model 'resnet19'"),
        ({"model": "unet"}, "unet is no classifier of images; choose from sre_resnet18"),
        ({"width": 0}, "width must be from 1 to 128, got 0"),
        ({"width": 129}, "width must be from 1 to 128, got 129"),
        ({"width": 1.5}, "width must be a whole number, got '1.5'"),
        ({"width": True}, "width must be a whole number, got 'True'"),
        ({"epochs": 1001}, "epochs must be from 1 to 1000, got 1001"),
        ({"batch_size": 513}, "the number of images a step must be from 2 to 512, got 513"),
        ({"side_px": 65}, "the image side must be from 24 to 64, got 65"),
        ({"side_px": 23}, "the image side must be from 24 to 64, got 23"),
        ({"epochs": 0}, "epochs must be from 1 to 1000, got 0"),
        ({"batch_size": 1}, "the number of images a step must be from 2 to 512, got 1"),
        ({"side_px": None}, "the image side must be a whole number, got nothing"),
        ({"learning_rate": 2}, "the learning rate must be above 0 and at most 1, got 2"),
        ({"learning_rate": float("nan")}, "the learning rate must be a number, got 'nan'"),
        ({"rotate": 1}, "rotate must be yes or no, got '1'"),
        ({"blur_pools": None}, "blur_pools must be yes or no, got nothing"),
        ({"protocol": "mine"}, "unknown protocol 'mine'"),
        ({"seed": -1}, "the seed must be a whole number of at least 0, got -1"),
        ({"minutes": 0}, "minutes must be from 0.1 to 1440, or left empty for no limit; got 0"),
        ({"minutes": "2"}, "minutes must be a number, got '2'"),
        ({"kernel_sizes": [9, 9, 5]}, "four odd numbers from 1 to 15, got 9,9,5; try 9,9,5,5"),
        ({"kernel_sizes": [8, 9, 5, 5]}, "four odd numbers from 1 to 15, got 8,9,5,5"),
        ({"kernel_sizes": "9,9,5,5"}, "kernel sizes must be four odd numbers; try 9,9,5,5"),
        ({"kernel_sizes": [None] * 4}, "a kernel size must be a whole number, got nothing"),
        ({"kernel_sizes": ["abc"] * 4}, "a kernel size must be a whole number, got 'abc'"),
        ({"mask_rate": 2}, "the masked share must be from 0 to 1, got 2"),
        ({"kernel_sizes": []}, "four odd numbers from 1 to 15, got nothing; try 9,9,5,5"),
        ({"width": None}, "width must be a whole number, got nothing"),
    ],
)  # fmt: skip
def test_what_cannot_be_asked_is_one_sentence(change, message):
    with pytest.raises(SREError) as caught:
        JobSettings.from_request(REQUEST | change)
    assert message in str(caught.value)


def test_settings_of_before_images_could_be_enlarged_can_be_read():
    earlier = {name: value for name, value in REQUEST.items() if name != "side_px"}
    assert JobSettings.from_request(earlier) == SETTINGS


@pytest.mark.parametrize("request_", [None, [], {}, "x"])
def test_a_request_without_settings_is_refused(request_):
    with pytest.raises(
        SettingError, match=r"the settings lack dataset, .*balance; reload the page"
    ):
        JobSettings.from_request(request_)


# the folder


def test_events_are_read_from_a_number_on_and_survive_torn_lines(tmp_path):
    job = Job(tmp_path)
    assert job.events() == ([], 0)
    job.append({"kind": "a"}, {"kind": "b"})
    assert job.events(1) == ([{"kind": "b"}], 2)
    with open(tmp_path / "events.jsonl", "ab") as file:
        file.write(b'{"kind": "c')  # a worker was killed here
    assert job.events() == ([{"kind": "a"}, {"kind": "b"}], 2)
    job.append({"kind": "d"})
    assert job.events(2) == ([{"kind": "d"}], 4)
    assert job.events(4) == ([], 4)


@pytest.mark.parametrize("text", ["", "[]", '{"state": "running"}', "{"])
def test_a_damaged_folder_stands_as_failed(tmp_path, text):
    job = Job(tmp_path)
    (tmp_path / "status.json").write_text(text)
    assert job.status().state == "failed"
    assert job.status().message == "how this run stands cannot be read; resume or remove it"
    with pytest.raises(SettingError, match="remove the job and start it anew"):
        job.settings()


def test_a_job_that_cannot_be_written_says_so(tmp_path):
    (tmp_path / "jobs").write_text("no folder")
    with pytest.raises(SREError, match=r"cannot be written to disk \(Not a directory\); free some"):
        make_job(tmp_path / "jobs", SETTINGS)


def test_a_run_whose_state_was_lost_can_be_resumed(queue, wanted):
    job = queue.start(SETTINGS)
    (job.folder / "status.json").write_bytes(b"")  # as a power cut may leave it
    queue.resume(job)
    run(queue, job)
    assert_same(load_file(queue.output / queue.status(job).checkpoint), wanted)


# the worker


def test_a_run_from_queue_to_checkpoint(queue, wanted):
    job = queue.start(SETTINGS)
    assert queue.status(job).state == "queued"
    assert run(queue, job) == 0
    status = queue.status(job)
    assert (status.state, status.epoch, status.epochs) == ("done", 3, 3)
    assert status.message == f"all 3 epochs are done; epoch {status.best_epoch}, the best, is kept"
    assert status.checkpoint == "breastmnist-resnet18-w1.safetensors"
    card = load_card(queue.output / status.checkpoint)
    assert card.command == SETTINGS.command()
    assert status.test == card.test
    assert kinds(job)[0] == "planned"
    assert kinds(job)[-1] == "saved"
    assert kinds(job).count("epoch") == 3
    assert kinds(job).count("step") >= 3
    assert not job.run_file.exists()
    assert_same(load_file(queue.output / status.checkpoint), wanted)
    assert run(queue, job) == 0  # what is done is not done again
    assert queue.status(job) == status


@pytest.mark.parametrize("after", [1, 2])
def test_a_run_goes_on_where_its_worker_broke_off(queue, wanted, monkeypatch, after):
    job = queue.start(SETTINGS)
    epoch = _Recorder._epoch

    def die(self, event):
        if event.epoch == after + 1:
            raise KeyboardInterrupt  # nothing catches it, as nothing catches SIGKILL
        epoch(self, event)

    monkeypatch.setattr(_Recorder, "_epoch", die)
    with pytest.raises(KeyboardInterrupt):
        run(queue, job)
    monkeypatch.setattr(_Recorder, "_epoch", epoch)
    status = queue.status(job)
    assert status.state == "interrupted"
    assert status.message == (
        "the worker ended before the run did; resuming goes on from the last whole epoch"
    )
    queue.resume(job)
    run(queue, job)
    assert queue.status(job).state == "done"
    told = [e["epoch"] for e in job.events()[0] if e["kind"] == "epoch"]
    assert told == [1, 2, 3]
    if after == 1:  # else nothing was left to train
        assert {"kind": "resumed", "epoch": 2} in job.events()[0]
    found = load_file(queue.output / queue.status(job).checkpoint)
    assert_same(found, wanted)


def test_stop_keeps_the_best_so_far(queue, monkeypatch):
    job = queue.start(replace(SETTINGS, config=replace(SETTINGS.config, epochs=50)))
    epoch = _Recorder._epoch

    def stop(self, event):
        epoch(self, event)
        queue.stop(job)

    monkeypatch.setattr(_Recorder, "_epoch", stop)
    run(queue, job)
    status = queue.status(job)
    assert status.state == "done"
    assert status.message.startswith("stopped in epoch 2 of 50; epoch ")
    assert (queue.output / status.checkpoint).is_file()


def test_a_budget_that_is_used_up_is_said(queue, monkeypatch):
    job = queue.start(replace(SETTINGS, minutes=0.1))
    now = iter(range(0, 10**6, 4))
    monkeypatch.setattr("sre.studies.train_run.time.monotonic", lambda: float(next(now)))
    run(queue, job)
    assert re.fullmatch(
        r"the time was up in epoch \d of \d; epoch \d, the best, is kept", queue.status(job).message
    )


def fail_at_epoch(monkeypatch, number: int, error: Exception) -> None:
    """Let the run fail with an error when it is about to keep an epoch."""
    count = iter(range(1, 100))

    def keep(*given: object, **named: object) -> None:
        if next(count) >= number:
            raise error
        save(*given, **named)

    monkeypatch.setattr("sre.runstate.save_file", keep)


def test_a_full_disk_is_said_and_the_best_is_kept(queue, monkeypatch, wanted):
    job = queue.start(SETTINGS)
    fail_at_epoch(monkeypatch, 2, OSError(errno.ENOSPC, "No space left on device"))
    run(queue, job)
    status = queue.status(job)
    assert status.state == "failed"
    assert "run.unfinished (No space left on device); free some space" in status.message
    assert "the best so far, is kept in breastmnist-resnet18-w1.safetensors" in status.message
    assert list_checkpoints(queue.output)
    monkeypatch.undo()
    monkeypatch.setattr(JobQueue, "pump", lambda self: None)
    queue.resume(job)
    run(queue, job)
    found = load_file(queue.output / queue.status(job).checkpoint)
    assert_same(found, wanted)


def test_events_that_cannot_be_written_are_said(queue, monkeypatch):
    job = queue.start(SETTINGS)

    def append(self, *events):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Job, "append", append)
    run(queue, job)
    assert queue.status(job).message == (
        "the run cannot be written down (No space left on device); free some space and resume"
    )
    assert not (job.folder / "reserve").exists()


def test_memory_that_runs_out_is_said(queue, monkeypatch):
    job = queue.start(SETTINGS)

    def build(*given, **named):
        raise MemoryError

    monkeypatch.setattr("sre.studies.train_run.build_model", build)
    run(queue, job)
    assert queue.status(job).message == "memory ran out; choose a smaller width or batch"


def test_a_loss_that_is_no_number_is_said(queue):
    job = queue.start(replace(SETTINGS, config=replace(SETTINGS.config, learning_rate=1.0)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "sre.training.loss_of", lambda logits, labels, **_: logits.sum() * float("nan")
        )
        run(queue, job)
    status = queue.status(job)
    assert status.state == "failed"
    assert "the loss became nan in epoch 1; try a lower learning rate than 1.0" in status.message


def test_a_data_file_that_has_gone_is_said(queue, tmp_path):
    (tmp_path / "empty").mkdir()
    queue.data_dir = tmp_path / "empty"
    job = queue.start(SETTINGS)
    run(queue, job)
    assert "breastmnist.npz is not there; download BreastMNIST" in queue.status(job).message


def test_a_device_that_has_gone_is_said(queue):
    job = queue.start(SETTINGS)
    work(job.folder, data_dir=queue.data_dir, output=queue.output, device="cuda:99")
    assert queue.status(job).message == (
        "the device cuda:99 does not answer; when it is back, resume, or start the app with "
        "--device cpu"
    )


def test_a_worker_that_cannot_start_is_said(tmp_path, data, monkeypatch):
    def spawn(self, job):
        return subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])

    monkeypatch.setattr(JobQueue, "_spawn", spawn)
    queue = JobQueue(tmp_path / "jobs", data, tmp_path / "trained")
    status = wait_until_over(queue, queue.start(SETTINGS))
    assert status.state == "failed"
    assert status.message == "the worker could not start; see log.txt in the job's folder"


def test_there_is_one_worker(queue, monkeypatch):
    monkeypatch.setattr("sre.studies.worker._PATIENCE_S", 0.05)
    job = queue.start(SETTINGS)
    with FileLock(queue.folder / LOCK):
        assert run(queue, job) == BUSY
    assert queue.status(job).state == "queued"


# the queue


def test_a_running_job_without_a_worker_is_interrupted(queue):
    job = queue.start(SETTINGS)
    job.write_status(Status("running", 1.0, epoch=2, left_s=3.0))
    with FileLock(queue.folder / LOCK):
        assert queue.status(job).state == "running"
    assert queue.status(job).state == "interrupted"
    assert queue.status(job).left_s is None


def test_the_queue_has_an_end(queue):
    for _ in range(MOST_QUEUED):
        queue.start(SETTINGS)
    with pytest.raises(SettingError, match="the queue is full, with 20 runs; wait for one to end"):
        queue.start(SETTINGS)
    queue.stop(list_jobs(queue.folder)[0])  # has not begun: it leaves
    assert len(list_jobs(queue.folder)) == MOST_QUEUED - 1


def test_jobs_that_are_over_are_forgotten_in_the_end(queue, monkeypatch):
    monkeypatch.setattr("sre.studies.job_queue.MOST_KEPT", 2)
    for count in range(4):
        job = queue.start(SETTINGS)
        job.write_status(Status("done", float(count)))
    queue.start(SETTINGS)
    assert sum(s.state == "done" for _, s in queue.jobs()) == 2


def test_jobs_that_are_not_there_and_moves_that_cannot_be(queue):
    job = queue.start(SETTINGS)
    for name in ("..", "20260101-000000-abcdef", ""):
        with pytest.raises(UnknownNameError, match=r"there is no run '.*'; it may have been"):
            queue.find(name)
    assert queue.find(job.name) == job
    with pytest.raises(SettingError, match="did not break off; start a new one"):
        queue.resume(job)
    job.write_status(Status("running", 1.0))
    with (
        FileLock(queue.folder / LOCK),
        pytest.raises(SettingError, match="is under way; stop it first"),
    ):
        queue.remove(job)
    queue.remove(job)
    assert list_jobs(queue.folder) == []


# with real processes

_KILLED_AFTER_TWO = """
import os, signal, sys
from pathlib import Path
from sre.studies import worker
epoch = worker._Recorder._epoch
def die(self, event):
    epoch(self, event)
    if event.epoch == 2:
        os.kill(os.getpid(), signal.SIGKILL)
worker._Recorder._epoch = die
job, data, output = map(Path, sys.argv[1:])
worker.work(job, data_dir=data, output=output, device="cpu")
"""


def test_the_same_settings_are_queued_once(queue):
    job, is_new = queue.find_or_start(SETTINGS)
    assert is_new
    assert queue.find_or_start(SETTINGS) == (job, False)
    other, is_new = queue.find_or_start(replace(SETTINGS, width=3))
    assert (is_new, other.name != job.name) == (True, True)
    (other.folder / "settings.json").write_bytes(b"{")  # damaged: it is nobody's twin
    assert queue.find_or_start(SETTINGS) == (job, False)
    job.ask_to_stop()  # it ends before it is done: the same again is another run
    assert queue.find_or_start(SETTINGS)[1]
    for found, _ in queue.jobs():
        found.write_status(Status("done", 1.0))
    assert queue.find_or_start(SETTINGS)[1]


def wait_until_over(queue: JobQueue, job: Job) -> Status:
    until = time.monotonic() + WAIT_S
    while (status := queue.status(job)).state in ("queued", "running"):
        assert time.monotonic() < until, (job.folder / "log.txt").read_text()
        time.sleep(0.05)
    return status


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_kill_9_costs_at_most_the_epoch_under_way(tmp_path, data):
    queue = JobQueue(tmp_path / "jobs", data, tmp_path / "trained")
    queue.folder.mkdir()
    settings = replace(SETTINGS, config=replace(SETTINGS.config, epochs=4))
    job = make_job(queue.folder, settings)
    arguments = [sys.executable, "-c", _KILLED_AFTER_TWO, job.folder, data, queue.output]
    assert subprocess.run(arguments, check=False, timeout=WAIT_S).returncode == -9
    assert queue.status(job).state == "interrupted"
    queue.resume(job)
    status = wait_until_over(queue, job)
    assert status.state == "done", status.message
    assert [e["epoch"] for e in job.events()[0] if e["kind"] == "epoch"] == [1, 2, 3, 4]
    assert {"kind": "resumed", "epoch": 2} in job.events()[0]
    found = load_file(queue.output / status.checkpoint)
    assert_same(found, unbroken(tmp_path / "whole", data, epochs=4))


@pytest.mark.slow
def test_one_after_the_other(tmp_path, data):
    queue = JobQueue(tmp_path / "jobs", data, tmp_path / "trained")
    first, second = queue.start(SETTINGS), queue.start(replace(SETTINGS, width=2))
    assert queue.status(second).state == "queued"
    queue.pump()  # changes nothing: one at a time
    assert wait_until_over(queue, second).state == "done"
    assert queue.status(first).state == "done"
    assert len(list_checkpoints(queue.output)) == 2
