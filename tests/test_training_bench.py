"""The benchmark of short trainings, on a run that is shorter still."""

from dataclasses import replace

import pytest

from bench.training import measure_run, measure_step, seconds_until
from sre.studies.job_settings import JobSettings
from sre.studies.trainer import PRESETS
from sre.training import EpochDone


@pytest.fixture
def settings() -> JobSettings:
    asked = dict(PRESETS[0]["settings"], dataset="digits", model="resnet18", width=1)
    found = JobSettings.from_request(asked)
    return replace(found, minutes=None, config=replace(found.config, epochs=1, batch_size=256))


def test_a_run_tells_its_epochs(settings):
    found = measure_run(settings)
    (epoch,) = found["epochs"]
    assert (epoch["epoch"], found["epochs_planned"]) == (1, 1)
    assert found["val_accuracy"] == epoch["val_accuracy"]
    assert found["took_s"] == round(epoch["seconds"], 1)
    assert found["command"] == settings.command()


def test_when_a_run_was_good_enough():
    epochs = [
        EpochDone(n, 1.0, accuracy, 0.0, 1.0, True, 10.04 * n)
        for n, accuracy in enumerate((0.5, 0.94, 0.95, 0.9), 1)
    ]
    assert [seconds_until(asked, epochs) for asked in (0.4, 0.95, 0.96)] == [10.0, 30.1, None]


def test_the_share_of_augmentation_is_that_of_both(settings):
    found = measure_step(settings, rounds=3)
    share = found["augmentation_share"]
    assert share["n"] == 3
    assert 0 < share["q1"] <= share["median"] <= share["q3"] < 1
    assert found["batch"] == 256
