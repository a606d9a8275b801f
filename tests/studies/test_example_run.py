"""The example is what was measured, or there is none."""

import json

import pytest

from sre.studies.example_run import MEASURED, MODEL, read_example


def test_the_example_is_the_measured_run():
    measured = json.loads(MEASURED.read_text())
    run, found = measured["runs"][MODEL], read_example()
    assert found["dataset"] == measured["dataset"]
    assert found["took_s"] == run["took_s"]
    planned, *epochs = found["events"]
    assert planned == {"kind": "planned", "epochs": run["epochs_planned"]}
    assert [e["upright"] for e in epochs] == [e["val_accuracy"] for e in run["epochs"]]
    assert [e["turned"] for e in epochs] == [e["val_turned_accuracy"] for e in run["epochs"]]
    json.dumps(found)


@pytest.mark.parametrize(
    "text",
    [
        None,
        "{",
        "[]",
        "{}",
        '{"runs": {"sre_resnet18": {}}}',
        '{"runs": {"sre_resnet18": {"epochs": []}}}',
    ],
)
def test_without_it_there_is_none(tmp_path, text):
    path = tmp_path / "training.json"
    if text is not None:
        path.write_text(text)
    assert read_example(path) is None
