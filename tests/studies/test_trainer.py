"""What the Train page asks for, and what it is told."""

import io
import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from sre.__main__ import main
from sre.errors import Dropped, SettingError, SREError, TrainingError
from sre.models import build_model, count_parameters
from sre.studies.estimate import Estimate
from sre.studies.job_queue import JobQueue
from sre.studies.job_settings import JobSettings
from sre.studies.plan import count_costs, estimate_apart, estimate_job
from sre.studies.trainer import PRESETS, Trainer
from tests.data.files import breast
from tests.studies.test_jobs import REQUEST, SETTINGS


@pytest.fixture
def trainer(tmp_path, monkeypatch) -> Trainer:
    """A trainer that starts no process."""
    monkeypatch.setattr(JobQueue, "pump", lambda self: None)
    np.savez(tmp_path / "breastmnist.npz", **breast())
    return Trainer(tmp_path, tmp_path / "cache")


def test_the_form_is_json_and_its_presets_can_be_asked_for(trainer):
    form = json.loads(json.dumps(trainer.form()))
    assert form["jobs"] == []
    assert [m["name"] for m in form["models"]][:2] == ["sre_resnet18", "resnet18"]
    for preset in PRESETS:
        JobSettings.from_request({"dataset": "digits"} | preset["settings"])
    assert "AdamW instead of SGD" in PRESETS[3]["description"]


def test_costs_are_those_of_the_network(trainer):
    model = build_model(
        "resnet18", in_channels=1, num_classes=2, width=1, kernel_sizes=(5, 5, 3, 3)
    )
    found = trainer.describe(REQUEST)
    assert found["parameters"] == count_parameters(model)
    assert found["multiply_adds"] == count_costs(SETTINGS)[1] > 10_000
    assert found["command"] == SETTINGS.command()


def test_a_job_on_the_page(trainer):
    first = trainer.start(REQUEST)["job"]
    second = trainer.start(REQUEST | {"width": 2})["job"]
    jobs = trainer.jobs()
    assert {j["name"]: j["place"] for j in jobs} == {first: 1, second: 2}
    assert jobs[0]["settings"]["width"] in (1, 2)
    job = trainer.queue.find(first)
    job.append({"kind": "a"}, {"kind": "b"})
    found = json.loads(json.dumps(trainer.follow(first, 1)))
    assert (found["events"], found["next"]) == ([{"kind": "b"}], 2)
    assert found["job"]["status"]["state"] == "queued"
    trainer.stop(first)
    assert [j["name"] for j in trainer.follow(None, 0)["jobs"]] == [second]
    job = trainer.queue.find(second)
    job.give_up("for a test")
    assert trainer.jobs()[0]["message"] == "for a test"
    trainer.resume(second)
    assert trainer.jobs()[0]["state"] == "queued"
    trainer.remove(second)
    assert trainer.jobs() == []


@pytest.mark.parametrize("ask", ["start", "stop", "resume", "remove", "estimate"])
def test_a_server_may_switch_training_off(trainer, ask):
    trainer.is_allowed = False
    given = (REQUEST, 1, "s") if ask == "estimate" else (REQUEST,)
    with pytest.raises(SettingError, match="training is switched off on this server; run the app"):
        getattr(trainer, ask)(*given)
    assert "switched off" in trainer.form()["off"]


@pytest.mark.parametrize(
    ("name", "since", "message"),
    [
        ("x", -1, "since must be a whole number of at least 0, got '-1'"),
        ("x", "a", "since must be a whole number of at least 0, got 'a'"),
        (7, 0, "a run's name must be a text, got '7'"),
        ("../..", 0, "there is no run '../..'"),
    ],
)
def test_what_cannot_be_followed(trainer, name, since, message):
    with pytest.raises(SREError) as caught:
        trainer.follow(name, since)
    assert message in str(caught.value)


def test_estimates_are_of_the_newest_settings_and_made_once(trainer, monkeypatch):
    made = []

    def estimate(settings, **_):
        made.append(settings)
        return Estimate(0.5, 10.0, 30.0)

    monkeypatch.setattr("sre.studies.trainer.estimate_apart", estimate)
    found = trainer.estimate(REQUEST, 1, "s")
    assert (found["epoch_s"], found["epochs"], found["total_s"]) == (10.0, 3, 30.0)
    short = trainer.estimate(REQUEST | {"minutes": 0.4}, 2, "s")
    assert (short["epochs"], short["total_s"]) == (2, 20.0)
    trainer.estimate(REQUEST, 3, "s")
    assert len(made) == 2
    with pytest.raises(SettingError, match="the request has no session and ticket"):
        trainer.estimate(REQUEST, None, None)
    monkeypatch.setattr(trainer, "_estimating", _Overtaken(trainer))
    with pytest.raises(Dropped, match="the settings have changed meanwhile"):
        trainer.estimate(REQUEST, 4, "s")


class _Overtaken:
    """A lock whose holder asks for something else first."""

    def __init__(self, trainer: Trainer):
        self.trainer = trainer

    def __enter__(self) -> None:
        self.trainer._newest["s"] = 5

    def __exit__(self, *_: object) -> None:
        pass


def test_a_few_steps_are_timed(trainer):
    found = estimate_job(SETTINGS, data_dir=trainer.data_dir, device="cpu")
    assert 0 < found.step_s < found.epoch_s < found.total_s


def test_the_command_reads_settings_and_says_what_is_wrong(trainer, monkeypatch, capsys, tmp_path):

    monkeypatch.setattr("sre.commands.jobs.lower_priority", lambda: None)
    command = ["estimate", "--data-dir", str(tmp_path)]
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(REQUEST)))
    assert main(command) == 0
    assert Estimate(**json.loads(capsys.readouterr().out)).epoch_s > 0
    monkeypatch.setattr("sys.stdin", io.StringIO("no json"))
    assert main(command) == 2
    assert "the settings on stdin are no JSON; use python -m sre" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("done", "message"),
    [
        ((-9, "", ""), "could not be taken, perhaps for lack of memory; choose a smaller width"),
        ((1, "", "Traceback\nerror: x\ny"), "could not be taken, perhaps for lack of memory"),
        ((2, "", "error: no such data\n"), "no such data"),
    ],
)
def test_steps_that_cannot_be_taken(monkeypatch, tmp_path, done, message):
    status, out, err = done

    def run(arguments, **_):
        return subprocess.CompletedProcess(arguments, status, out, err)

    monkeypatch.setattr("sre.studies.plan.subprocess.run", run)
    with pytest.raises(TrainingError, match=message):
        estimate_apart(SETTINGS, data_dir=Path(tmp_path), device="cpu")


def test_steps_that_take_too_long(tmp_path):
    with pytest.raises(TrainingError, match=r"take more than 0\.001 seconds here; choose a small"):
        estimate_apart(SETTINGS, data_dir=tmp_path, device="cpu", patience_s=0.001)
