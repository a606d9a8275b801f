import json
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from sre.data.store import load_split
from sre.errors import SREError
from sre.studies import evaluations as module
from sre.studies.answering import Asking
from sre.studies.evaluate_run import run_evaluation
from sre.studies.evaluation_store import EvaluationStore, stamps_of_files
from sre.studies.evaluations import Evaluations
from sre.studies.lab import Lab

WAIT_S = 60
IMAGES, QUICK_IMAGES = 60, 30  # for tests that stay quick


@pytest.fixture(scope="module", autouse=True)
def few_images():
    def run(*arguments, **settings):
        settings["most_images"] = settings["most_images"] or IMAGES
        return run_evaluation(*arguments, **settings | {"resamples": 100})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "run_evaluation", run)
        patch.setattr(module, "QUICK_IMAGES", QUICK_IMAGES)
        yield


@pytest.fixture(scope="module")
def made(networks, tmp_path_factory) -> Evaluations:
    """A quick look at the digits has been taken."""
    folder = tmp_path_factory.mktemp("evaluations")
    found = Evaluations(folder, folder, networks["sre"].parent)
    found.look("digits", "disc")
    assert wait_for_end(found)["state"] == "done"
    return found


@pytest.fixture
def fresh(networks, tmp_path) -> Evaluations:
    return Evaluations(tmp_path, tmp_path, networks["sre"].parent)


def wait_for_end(evaluations: Evaluations) -> dict:
    deadline = time.monotonic() + WAIT_S
    while (now := evaluations.progress())["state"] == "running":
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return now


def start(evaluations: Evaluations, **changes: object) -> dict:
    names = [network["file"] for network in row_of(evaluations)["networks"]]
    request = {
        "dataset": "digits", "checkpoints": names[:1], "protocol": "disc", "step_deg": 30,
        "average": False, "placings": False,
    }  # fmt: skip
    return evaluations.start(**request | changes)


def row_of(evaluations: Evaluations) -> dict:
    return next(r for r in evaluations.catalogue()["datasets"] if r["name"] == "digits")


def test_catalogue_tells_networks_with_their_cost_in_the_order_of_the_lab(made):
    found = made.catalogue()
    assert found["start"] == {"dataset": "digits", "protocol": "disc"}
    assert len(found["datasets"]) == 14
    assert [n["arm"] for n in row_of(made)["networks"]] == ["sre", "plain", "augmented"]
    assert all(n["parameters"] and n["multiply_adds"] for n in row_of(made)["networks"])
    json.dumps(found)


def test_a_quick_look_is_a_part_of_the_images_and_says_so(made):
    found = made.result("digits", "disc")["result"]
    json.dumps(found, allow_nan=False)
    assert found["settings"]["quick"]
    assert (found["images"], found["of_images"]) == (QUICK_IMAGES, 400)
    assert len(found["angles_deg"]) == 12
    assert [model["arm"] for model in found["models"]] == ["sre", "plain", "augmented"]
    assert found["csv"].startswith("network,angle_deg,figure,value,low,high\n")
    assert [m["short"] for m in found["models"]] == ["SRE-CNN", "CNN", "CNN + rotation"]
    assert all(m["title"].startswith(f"{m['short']}, width ") for m in found["models"])
    assert made.result("digits", "paper") == {"result": None}


def test_a_result_of_another_version_is_none(made):
    found = made.result("digits", "disc")["result"]
    path = made.cache_dir / "evaluations" / f"{found['id']}.json"
    text = path.read_text()
    again = Evaluations(made.data_dir, made.cache_dir, made.checkpoints_dir)
    assert again.result("digits", "disc")["result"]["id"] == found["id"]
    path.write_text(json.dumps(found | {"version": 1}))
    assert again.result("digits", "disc") == {"result": None}
    path.write_text(text)


def test_cells_and_changes_name_their_images(made):
    found = made.result("digits", "disc")["result"]
    data = load_split("digits", "test", data_dir=Path())
    for m, model in enumerate(found["models"]):
        matrix = np.array(model["confusion"][4])
        assert matrix.sum() == QUICK_IMAGES
        row, column = (int(i) for i in np.unravel_index(matrix.argmax(), matrix.shape))
        cell = made.cell(found["id"], m, 4, "confusion", row, column)
        assert cell["total"] == matrix[row, column]
        assert len(cell["indices"]) == min(24, cell["total"])
        assert set(data.labels[cell["indices"]]) == {row}
        for before, after, count in model["changes"][4]:
            assert before != after
            assert made.cell(found["id"], m, 4, "change", before, after)["total"] == count
    assert found["models"][0]["changes"][0] == []
    pictures = made.pictures("digits", cell["indices"])
    assert pictures["sheet"]["count"] == len(cell["indices"])
    assert set(pictures["labels"]) == {row}


def test_an_evaluation_of_all_images_goes_before_a_quick_look(made):
    start(made)
    with pytest.raises(SREError, match=r"^an evaluation of Handwritten digits is running; wait"):
        start(made)
    now = wait_for_end(made)
    assert (now["state"], now["done"]) == ("done", now["total"])
    found = made.result("digits", "disc")["result"]
    assert (found["images"], found["settings"]["quick"]) == (IMAGES, False)
    assert len(found["models"]) == 1


def test_averages_are_told_with_their_cost(fresh):
    start(fresh, average=True)
    assert wait_for_end(fresh)["state"] == "done"
    plain, average = fresh.result("digits", "disc")["result"]["models"]
    assert average["multiply_adds"] == 8 * plain["multiply_adds"]
    assert average["averaged_rotations"] == 8
    assert average["title"] == f"{plain['title']}, mean of 8 rotations"
    assert average["short"] == f"{plain['short']}, mean of 8 rotations"


def test_networks_that_were_trained_on_the_page_take_part(fresh, networks):
    folder = fresh.cache_dir / "trained"
    folder.mkdir()
    (folder / networks["sre"].name).write_bytes(networks["sre"].read_bytes())
    names = [network["file"] for network in row_of(fresh)["networks"]]
    assert names[:2] == [networks["sre"].name, f"trained:{networks['sre'].name}"]
    start(fresh, checkpoints=names[:2])
    assert wait_for_end(fresh)["state"] == "done"
    first, second = fresh.result("digits", "disc")["result"]["models"]
    assert second["name"] == f"trained/{networks['sre'].name}"
    assert first["angles"] == second["angles"]


def test_what_is_urgent_holds_an_evaluation_up(networks, tmp_path):
    waits = []
    found = Evaluations(
        tmp_path, tmp_path, networks["sre"].parent, wait=lambda: waits.append(found.progress())
    )
    start(found)
    assert wait_for_end(found)["state"] == "done"
    assert len(waits) > 10
    lab = Lab(tmp_path, tmp_path, networks["sre"].parent)
    idle = threading.Thread(target=lab.wait_until_idle)
    with lab._running:
        idle.start()
        idle.join(0.05)
        assert idle.is_alive()
    idle.join(WAIT_S)
    assert not idle.is_alive()


def test_a_stopped_evaluation_keeps_its_answers_and_starts_again(fresh, monkeypatch):
    asked, answering = [], Asking._answering

    def counted(self, who, pose):
        asked.append(pose)
        if len(asked) == 2:
            fresh.stop(fresh.progress()["id"])
        return answering(self, who, pose)

    monkeypatch.setattr(Asking, "_answering", counted)
    begun = start(fresh)
    assert fresh.stop("another")["state"] == "running"
    assert begun["state"] == "running"
    assert wait_for_end(fresh)["state"] == "stopped"
    assert fresh.result("digits", "disc")["result"] is None
    assert len(list((fresh.cache_dir / "answers").glob("*.npy"))) >= 1
    start(fresh)
    assert wait_for_end(fresh)["state"] == "done"
    assert fresh.result("digits", "disc")["result"] is not None


def test_what_goes_wrong_is_told_and_the_next_evaluation_starts(fresh, networks, monkeypatch):
    def refuse(*arguments, **settings):
        raise module.SettingError("nothing works; try later")
        yield

    monkeypatch.setattr(module, "run_evaluation", refuse)
    start(fresh)
    now = wait_for_end(fresh)
    assert (now["state"], now["message"]) == ("failed", "nothing works; try later")
    assert start(fresh)["state"] in ("running", "failed")
    wait_for_end(fresh)


def test_a_result_holds_as_long_as_its_files_stay_as_they_are(made, tmp_path):
    store = EvaluationStore(made.cache_dir / "evaluations")
    assert store.newest("digits", "disc", made._stamps) is not None
    assert store.newest("digits", "disc", lambda settings: {}) is None
    (tmp_path / "a").write_text("1")
    before = stamps_of_files([tmp_path / "a", tmp_path / "gone"])
    (tmp_path / "a").write_text("12")
    assert before != stamps_of_files([tmp_path / "a", tmp_path / "gone"])
    (tmp_path / "bad.json").write_text("{")
    assert EvaluationStore(tmp_path).newest("digits", "disc", made._stamps) is None
    (tmp_path / "bad.npz").write_bytes(b"damaged")
    assert EvaluationStore(tmp_path).answers("bad") is None


def test_where_the_disk_takes_nothing_the_last_result_is_shown_all_the_same(networks, tmp_path):
    (tmp_path / "file").write_text("in the way")
    found = Evaluations(tmp_path, tmp_path / "file", networks["sre"].parent)
    start(found)
    assert wait_for_end(found)["state"] == "done"
    result = found.result("digits", "disc")["result"]
    assert result["images"] == IMAGES
    with pytest.raises(SREError, match=r"^that result is no longer kept; press Start"):
        found.cell(result["id"], 0, 0, "confusion", 0, 0)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda e: e.result("digit", "disc"), r"^unknown data set 'digit'"),
        (lambda e: e.result(3, "disc"), r"^dataset must be a short text, got '3'$"),
        (lambda e: e.result("digits", "x" * 300), r"^protocol must be a short text"),
        (lambda e: e.look("organmnist3d", "disc"), r"^OrganMNIST3D holds volumes; choose a 2-D"),
        (
            lambda e: start(e, checkpoints=[]),
            r"^an evaluation takes 1 to 8 networks; tick as many$",
        ),
        (lambda e: start(e, checkpoints=["../x"]), r"^'../x' is no network of Handwritten digits;"),
        (lambda e: start(e, step_deg=1), r"^step_deg must be 10 or 30; try 10$"),
        (lambda e: start(e, average="yes"), r"^average and placings must be true or false"),
        (lambda e: e.pictures("digits", []), r"^indices must be a list of 1 to 24"),
        (lambda e: e.pictures("digits", [400]), r"^sample must be a whole number from 0 to 399"),
        (lambda e: e.cell("../x", 0, 0, "change", 0, 0), r"^that result is no longer kept"),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)
def test_requests_that_cannot_be_get_a_sentence(made, ask, message):
    with pytest.raises(SREError, match=message):
        ask(made)


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ((9, 0, "change", 0, 0), r"^model must be a whole number from 0 to \d, got '9'$"),
        ((0, -1, "change", 0, 0), r"^angle must be a whole number from 0 to 11, got '-1'$"),
        ((0, 0, "odd", 0, 0), r"^kind must be confusion or change, got 'odd'$"),
        ((0, 0, "change", True, 0), r"^row must be a whole number"),
    ],
)
def test_cells_that_are_not_there_get_a_sentence(made, place, message):
    name = made.result("digits", "disc")["result"]["id"]
    with pytest.raises(SREError, match=message):
        made.cell(name, *place)
