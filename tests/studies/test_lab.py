import io
import json
import re
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sre.data.table import DATASETS
from sre.data.transfer import Progress
from sre.errors import (
    CheckpointError,
    DataError,
    Dropped,
    ImageError,
    SettingError,
    SREError,
    UnknownNameError,
)
from sre.studies import lab as lab_module
from sre.studies.bundle import LIMIT_BYTES
from sre.studies.lab import MOST_SESSIONS, MOST_UPLOADS, Lab
from sre.studies.samples import FoundView
from sre.studies.shelf import Network
from tests.data.files import breast
from tests.networks import CARD, write_checkpoint

WAIT_S = 20  # at most, for what takes a second


@pytest.fixture(scope="module")
def shelf(networks, tmp_path_factory) -> Path:
    """A folder of checkpoints for the digits, and of some that are not to be shown."""
    folder = tmp_path_factory.mktemp("checkpoints")
    for path in networks.values():
        shutil.copy(path, folder)
    write_checkpoint(folder, width=5)  # wider than need be
    write_checkpoint(folder, rotates_in_training=True)  # has no column
    (folder / "digits-broken.safetensors").write_bytes(b"junk")
    # Of another digits: fewer classes, or in colour.
    write_checkpoint(folder, width=1, classes=("a", "b"))
    write_checkpoint(folder, width=2, in_channels=3)
    return folder


@pytest.fixture
def lab(shelf, tmp_path) -> Lab:
    return Lab(data_dir=tmp_path / "data", cache_dir=tmp_path / "cache", checkpoints_dir=shelf)


@pytest.fixture
def quick_lab(networks, tmp_path) -> Lab:
    """A Lab with one network, for tests that compute several orbits."""
    (tmp_path / "one").mkdir()
    shutil.copy(networks["sre"], tmp_path / "one")
    folders = {name: tmp_path / name for name in ("data", "cache")}
    return Lab(
        data_dir=folders["data"], cache_dir=folders["cache"], checkpoints_dir=tmp_path / "one"
    )


def ask(lab: Lab, **changes: object) -> dict:
    given = {
        "dataset": "digits",
        "sample": 0,
        "upload": None,
        "protocol": "disc",
        "target": None,
        "ticket": 0,
        "session": "",
    }
    return lab.orbit(**given | changes)


def png(colour: object = (200, 40, 40), *, size: tuple[int, int] = (40, 30)) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, colour).save(out, "PNG")
    return out.getvalue()


def wait_until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.002)


# The catalogue


def row(lab: Lab, name: str) -> dict:
    (found,) = [r for r in lab.catalogue()["datasets"] if r["name"] == name]
    return found


def test_the_catalogue_lists_every_set(lab):
    rows = lab.catalogue()["datasets"]
    assert [r["name"] for r in rows] == list(DATASETS)
    json.dumps(rows, allow_nan=False)
    for found in rows:
        entry = DATASETS[found["name"]]
        assert found["title"] == entry.title
        assert found["classes"] == list(entry.classes)
        assert found["counts"] == dict(entry.splits)
        assert found["dimensions"] == entry.dimensions
        assert found["licence"] == entry.licence
        built_in = entry.source == "built-in"
        assert found["status"] == ("built-in" if built_in else "missing")
        assert (found["download_bytes"] == 0) == built_in
        assert found["note"] == ""
    assert row(lab, "breastmnist")["download_bytes"] == 559_580
    assert not row(lab, "breastmnist")["download_is_bound"]
    assert row(lab, "pathmnist")["download_is_bound"]


def test_the_catalogue_counts_the_checkpoints_that_can_be_shown(lab):
    # Three arms, a wider one and an arm without a usual column; not those of other classes.
    assert row(lab, "digits")["checkpoints"] == 5
    assert row(lab, "cells")["checkpoints"] == 0


def test_the_page_opens_on_cells_where_there_is_nothing_else(lab, tmp_path):
    empty = Lab(data_dir=tmp_path / "a", cache_dir=tmp_path / "b", checkpoints_dir=tmp_path / "c")
    assert empty.catalogue()["start"] == {"dataset": "cells", "sample": 0, "note": ""}
    assert lab.catalogue()["start"] == {"dataset": "cells", "sample": 0, "note": ""}
    assert not (tmp_path / "a").exists()


def test_the_page_opens_on_medmnist_where_there_is_some(lab, tmp_path):
    lab.checkpoints_dir = tmp_path / "checkpoints"
    lab.data_dir.mkdir()
    np.savez(lab.data_dir / "breastmnist.npz", **breast())
    assert row(lab, "breastmnist")["status"] == "other"
    # Without a network there is nothing to turn it with.
    assert lab.catalogue()["start"]["dataset"] == "cells"
    classes = DATASETS["breastmnist"].classes
    write_checkpoint(lab.checkpoints_dir, dataset="breastmnist", classes=classes)
    assert lab.catalogue()["start"] == {"dataset": "breastmnist", "sample": 0, "note": ""}
    # BloodMNIST before all others, whatever its file is worth.
    (lab.data_dir / "bloodmnist.npz").write_bytes(b"junk")
    blood = DATASETS["bloodmnist"]
    write_checkpoint(
        lab.checkpoints_dir, dataset="bloodmnist", classes=blood.classes, in_channels=3
    )
    assert lab.catalogue()["start"]["dataset"] == "bloodmnist"


def test_the_page_opens_where_turning_makes_a_difference(lab, tmp_path, monkeypatch):
    lab.checkpoints_dir = tmp_path / "checkpoints"
    lab.data_dir.mkdir()
    np.savez(lab.data_dir / "breastmnist.npz", **breast())
    write_checkpoint(
        lab.checkpoints_dir, dataset="breastmnist", classes=DATASETS["breastmnist"].classes
    )
    with pytest.raises(CheckpointError, match="has no plain checkpoint"):
        lab.choose_opening()
    first = {"dataset": "breastmnist", "sample": 0, "note": ""}
    assert lab.catalogue()["start"] == first
    asked = []

    def find_sample(dataset, kind, **settings):
        asked.append((dataset, kind, settings["after"], settings["protocol"]))
        return FoundView(3, "The CNN is right upright, and wrong at 2 of 11 other angles.")

    monkeypatch.setattr(lab_module, "find_sample", find_sample)
    lab.choose_opening()
    assert asked == [("breastmnist", "cnn_wrong_turned", None, "disc")]
    why = "This image was chosen to begin with. "
    note = why + "The CNN is right upright, and wrong at 2 of 11 other angles."
    assert lab.catalogue()["start"] == first | {"sample": 3, "note": note}
    # What was found in one set says nothing of another.
    (lab.data_dir / "breastmnist.npz").unlink()
    assert lab.catalogue()["start"] == {"dataset": "cells", "sample": 0, "note": ""}


def test_a_file_that_cannot_be_read_is_noted(lab):
    (lab.data_dir / "breastmnist.npz").mkdir(parents=True)
    found = row(lab, "breastmnist")
    assert found["status"] == "missing"
    assert "breastmnist.npz cannot be read (Is a directory); make it a file" in found["note"]


# The orbit


@pytest.fixture(scope="module")
def answer(shelf, tmp_path_factory) -> dict:
    folder = tmp_path_factory.mktemp("answer")
    return ask(Lab(data_dir=folder, cache_dir=folder, checkpoints_dir=shelf), sample=17)


def test_the_orbit_of_a_sample(answer):
    assert len(json.dumps(answer, separators=(",", ":")).encode()) <= LIMIT_BYTES
    assert answer["version"] > 0
    assert answer["dataset"]["name"] == "digits"
    assert answer["dataset"]["provenance"] == "built-in"
    assert answer["dataset"]["classes"] == list("0123456789")
    assert answer["sample"]["index"] == 17
    assert answer["sample"]["label"] in range(10)
    assert answer["sample"] == {
        "source": "dataset",
        "split": "test",
        "index": 17,
        "label": answer["sample"]["label"],
        "name": "test image 17",
    }
    assert answer["target"]["chosen"] is False
    one = r"SRE (never )?changes its mind"
    assert re.match(rf"Over the full turn ({one}|no network changes its mind)", answer["headline"])
    assert "ight" in answer["headline"]  # the label is known


def test_the_narrowest_of_each_arm_is_shown_in_order(answer):
    shown = [(m["arm"], len(m["stages"][0]["channels"])) for m in answer["models"]]
    assert shown == [("sre", 5), ("plain", 5), ("augmented", 5)]


def test_a_target_is_explained(lab):
    found = ask(lab, target=9)
    assert found["target"] == {"class": 9, "same": True, "chosen": True}
    assert {m["target"] for m in found["models"]} == {9}
    with pytest.raises(SettingError, match=r"^the class to explain must be from 0 to 9, got 10$"):
        ask(lab, target=10)


def test_an_answer_is_kept_and_told_apart_by_all_it_hangs_on(quick_lab, monkeypatch):
    computed = []
    study = lab_module.study_orbit

    def count(*given: object, **settings: object) -> object:
        computed.append(1)
        return study(*given, **settings)

    monkeypatch.setattr(lab_module, "study_orbit", count)
    first = ask(quick_lab)
    assert ask(quick_lab) == first
    assert len(computed) == 1
    for change in ({"protocol": "paper"}, {"target": 1}, {"sample": 1}):
        assert ask(quick_lab, **change)["key"] != first["key"]
    assert len(computed) == 4
    again = Lab(
        data_dir=quick_lab.data_dir,
        cache_dir=quick_lab.cache_dir,
        checkpoints_dir=quick_lab.checkpoints_dir,
    )
    assert ask(again) == first  # a restart
    assert len(computed) == 4


def test_the_same_picture_twice_keeps_its_own_name(lab):
    image = np.random.default_rng(0).integers(0, 256, (28, 28), np.uint8)
    out = io.BytesIO()
    Image.fromarray(image).save(out, "PNG")
    tokens = [lab.upload(out.getvalue(), name, "digits")["token"] for name in ("a", "b")]
    found = [ask(lab, sample=None, upload=token) for token in tokens]
    assert found[0]["key"] == found[1]["key"]
    assert found[0]["sample"]["source"] == "upload"


def test_an_exchanged_checkpoint_is_another_answer(lab, shelf, tmp_path):
    lab.checkpoints_dir = tmp_path / "own"
    write_checkpoint(lab.checkpoints_dir, seed=0)
    first = ask(lab)
    assert [m["arm"] for m in first["models"]] == ["sre"]
    write_checkpoint(lab.checkpoints_dir, seed=3, test={"accuracy_at_0": 0.25})
    second = ask(lab)
    assert second["key"] != first["key"]
    assert second["models"][0]["test"] == {"accuracy_at_0": 0.25}


def test_a_checkpoint_that_vanishes_is_a_sentence(lab, monkeypatch):
    gone = [Network("gone", lab.checkpoints_dir / "gone.safetensors", CARD)]
    monkeypatch.setattr(Lab, "_networks", lambda self, entry, names=None: gone)
    message = r"^a checkpoint has just been removed; ask again$"
    with pytest.raises(CheckpointError, match=message):
        ask(lab)


def test_damaged_answers_on_disk_are_computed_anew(quick_lab):
    first = ask(quick_lab)
    (kept,) = (quick_lab.cache_dir / "orbits").iterdir()
    kept.write_bytes(kept.read_bytes()[:-100])
    again = Lab(
        data_dir=quick_lab.data_dir,
        cache_dir=quick_lab.cache_dir,
        checkpoints_dir=quick_lab.checkpoints_dir,
    )
    assert ask(again) == first


def test_a_cache_that_cannot_be_written_costs_speed_only(shelf, tmp_path):
    (tmp_path / "file").write_text("")
    lab = Lab(data_dir=tmp_path, cache_dir=tmp_path / "file", checkpoints_dir=shelf)
    assert ask(lab)["key"] == ask(lab)["key"]


@pytest.mark.parametrize("dataset", ["cells", "breastmnist", "organamnist"])
def test_sets_without_data_or_checkpoint_tell_the_way(lab, dataset):
    if dataset == "cells":
        message = (
            r"^Drawn cells has no checkpoint yet; train one with: "
            r"python -m sre train cells sre_resnet18$"
        )
        with pytest.raises(SettingError, match=message):
            ask(lab, dataset=dataset)
    else:
        with pytest.raises(DataError, match=rf"{dataset}\.npz is not there; download"):
            ask(lab, dataset=dataset)


def test_volumes_are_not_turned(lab):
    message = (
        r"^NoduleMNIST3D holds volumes, which the Lab does not turn yet; choose a 2-D data set$"
    )
    for attempt in (
        lambda: ask(lab, dataset="nodulemnist3d"),
        lambda: ask(lab, dataset="nodulemnist3d", sample=None, upload="x"),
        lambda: lab.gallery("nodulemnist3d", None, 0, 10),
        lambda: lab.find("nodulemnist3d", "random", None, "disc"),
        lambda: lab.upload(png(), "x.png", "nodulemnist3d"),
    ):
        with pytest.raises(SettingError, match=message):
            attempt()


# Many at once


def test_thirty_requests_at_once_compute_once(lab, monkeypatch):
    computed = []
    study = lab_module.study_orbit

    def slow(*given: object, **settings: object) -> object:
        computed.append(1)
        wait_until(lambda: all(len(f.wanted) == 30 for f in lab._cache._flights.values()))
        return study(*given, **settings)

    monkeypatch.setattr(lab_module, "study_orbit", slow)
    with ThreadPoolExecutor(30) as pool:
        found = list(pool.map(lambda n: ask(lab, ticket=n, session=f"visitor {n}"), range(30)))
    assert len(computed) == 1
    assert all(f == found[0] for f in found)


def test_networks_run_for_one_request_at_a_time(quick_lab, monkeypatch):
    running, most = [], []
    study = lab_module.study_orbit

    def watch(*given: object, **settings: object) -> object:
        running.append(1)
        most.append(len(running))
        try:
            return study(*given, **settings)
        finally:
            running.pop()

    monkeypatch.setattr(lab_module, "study_orbit", watch)
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda n: ask(quick_lab, sample=n), range(3)))
    assert most == [1, 1, 1]


def test_a_newer_ticket_drops_the_older(quick_lab):
    with ThreadPoolExecutor(1) as pool:
        with quick_lab._running:  # the networks are busy with somebody else
            older = pool.submit(ask, quick_lab, sample=1, ticket=1, session="me")
            wait_until(lambda: quick_lab._tickets.get("me") == 1 and quick_lab._cache._flights)
            quick_lab._note_ticket("me", 2)
        with pytest.raises(Dropped, match=r"^the visitor has moved on; ask again if you still"):
            older.result(WAIT_S)
    assert ask(quick_lab, sample=1, ticket=2, session="me")["sample"]["index"] == 1
    assert ask(quick_lab, sample=1, ticket=0, session="other")["sample"]["index"] == 1


def test_a_dropped_visitor_does_not_drop_another(quick_lab):
    with ThreadPoolExecutor(2) as pool:
        with quick_lab._running:
            mine = pool.submit(ask, quick_lab, sample=2, ticket=1, session="me")
            wait_until(lambda: quick_lab._cache._flights)
            yours = pool.submit(ask, quick_lab, sample=2, ticket=1, session="you")
            wait_until(lambda: [len(f.wanted) for f in quick_lab._cache._flights.values()] == [2])
            quick_lab._note_ticket("me", 2)
        assert yours.result(WAIT_S)["sample"]["index"] == 2
        assert mine.result(WAIT_S)["sample"]["index"] == 2


def test_old_tickets_get_what_is_there(lab):
    first = ask(lab, ticket=5, session="me")
    assert ask(lab, ticket=1, session="me") == first


def test_callers_without_a_session_are_never_dropped(quick_lab):
    ask(quick_lab, sample=3, ticket=9)
    assert ask(quick_lab, sample=4, ticket=1)["sample"]["index"] == 4
    assert quick_lab._tickets == {}


def test_sessions_are_bounded(lab):
    for n in range(MOST_SESSIONS + 10):
        lab._note_ticket(f"s{n}", 1)
    assert len(lab._tickets) == MOST_SESSIONS
    assert "s0" not in lab._tickets
    assert lab._is_newest("s0", 1)  # forgotten, not dropped


# The gallery


def test_a_gallery_has_items_and_their_pictures(lab):
    found = lab.gallery("digits", 3, 2, 5)
    assert found["total"] > 30
    assert len(found["items"]) == found["sheet"]["count"] == 5
    assert {item["label"] for item in found["items"]} == {3}
    json.dumps(found, allow_nan=False)
    assert lab.gallery("digits", None, 0, 200)["sheet"]["count"] == 200
    nothing = lab.gallery("digits", None, 400, 10)
    assert nothing == {"total": 400, "items": [], "sheet": None}


def test_find(lab):
    assert lab.find("digits", "random", None, "disc")["index"] in range(400)
    found = lab.find("digits", "sre_wrong", 3, "paper")
    assert found["index"] != 3
    assert found["note"] == "SRE is wrong here, upright already."
    with pytest.raises(CheckpointError, match=r"^cells has no sre checkpoint; train one$"):
        lab.find("cells", "sre_wrong", None, "disc")


def test_random_samples_do_not_wait_for_the_networks(lab):
    with lab._running:
        assert lab.find("digits", "random", None, "disc")["note"] == ""


# Uploads


def test_an_upload_is_turned_and_marked(lab):
    taken = lab.upload(png(), "holiday.png", "digits")
    assert taken["name"] == "holiday.png"
    assert taken["note"] == "Cropped to its central square and brought to 28 px."
    found = ask(lab, sample=None, upload=taken["token"])
    assert found["sample"] == {
        "source": "upload",
        "split": None,
        "index": None,
        "label": None,
        "name": "your own picture, not from this data set",
    }
    assert "ight" not in found["headline"]


def test_tokens_cannot_be_guessed_and_are_for_one_set(lab):
    tokens = {lab.upload(png(), "x", "digits")["token"] for _ in range(5)}
    assert len(tokens) == 5
    assert all(len(token) == 32 for token in tokens)
    message = r"^that picture is no longer here; choose the file again$"
    for token in ("", "x", "../../etc/passwd", "0" * 32):
        with pytest.raises(ImageError, match=message):
            ask(lab, upload=token)
    with pytest.raises(ImageError, match=message):
        ask(lab, dataset="cells", upload=tokens.pop())


def test_uploads_are_bounded(lab):
    small = png(size=(1, 1))
    tokens = [lab.upload(small, "x", "digits")["token"] for _ in range(MOST_UPLOADS + 5)]
    assert len(lab._uploads) == MOST_UPLOADS
    assert tokens[4] not in lab._uploads
    assert tokens[5] in lab._uploads


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a" * 300, "a" * 80),
        ("<script>.png", "<script>.png"),  # the page writes it as text
        ("line\nbreak\x00\x1b[31m\u202e.png", "linebreak[31m.png"),
        ("\ud800x", "x"),
        ("", ""),
        (None, "None"),
        (7, "7"),
    ],
)
def test_names_of_files_are_tamed(lab, name, shown):
    found = lab.upload(png(), name, "digits")
    assert found["name"] == shown
    found["name"].encode()


def test_broken_uploads_leave_nothing(lab):
    with pytest.raises(ImageError, match="no picture that can be read"):
        lab.upload(b"<svg/>", "x.svg", "digits")
    assert len(lab._uploads) == 0


# Downloads


class Server:
    """Stands in for the download: waits, then ends as it is told."""

    def __init__(self, fault: Exception | None = None):
        self.fault, self.calls, self.may_end = fault, 0, threading.Event()

    def __call__(self, *given: object, **settings: object) -> None:
        self.calls += 1
        assert self.may_end.wait(WAIT_S)
        if self.fault:
            raise self.fault


def test_downloads_of_a_set_are_one(lab, monkeypatch):
    server = Server()
    monkeypatch.setattr(lab_module, "download", server)
    for _ in range(30):
        assert lab.download("breastmnist")["state"] == "running"
    assert lab.download_progress("breastmnist")["state"] == "running"
    assert lab.download_progress("bloodmnist")["state"] == "idle"
    wait_until(lambda: server.calls > 0)
    assert server.calls == 1
    lab.data_dir.mkdir()
    np.savez(lab.data_dir / "breastmnist.npz", **breast())
    server.may_end.set()
    wait_until(lambda: lab.download_progress("breastmnist")["state"] == "done")


def test_progress_is_passed_on(lab, monkeypatch):
    server = Server()
    monkeypatch.setattr(lab_module, "download", server)
    progress = Progress(10, 100, "downloading", "10 of 100")
    monkeypatch.setattr(lab_module, "current_progress", lambda *_: progress)
    lab.download("breastmnist")
    expected = {"done": 10, "total": 100, "state": "running", "message": "10 of 100"}
    assert lab.download_progress("breastmnist") == expected
    server.may_end.set()
    wait_until(lambda: not lab._fetching)


def test_a_failed_download_is_a_sentence_and_can_be_tried_again(lab, monkeypatch):
    server = Server(DataError("the server is asleep; try again"))
    server.may_end.set()
    monkeypatch.setattr(lab_module, "download", server)
    lab.download("breastmnist")
    wait_until(lambda: not lab._fetching)
    assert lab.download_progress("breastmnist") == {
        "done": 0,
        "total": None,
        "state": "error",
        "message": "the server is asleep; try again",
    }
    server.fault = None
    lab.download("breastmnist")
    wait_until(lambda: not lab._fetching)
    assert lab.download_progress("breastmnist")["state"] == "idle"
    assert server.calls == 2


def test_built_in_sets_are_there(lab):
    assert lab.download_progress("digits")["state"] == "done"
    with pytest.raises(SettingError, match=r"^Handwritten digits is built in and has no file"):
        lab.download("digits")


# What a hostile browser may send

HOSTILE = [
    None, True, False, -1, 10**9, 2**53 + 1, -(2**63), 10**400, 1.5, float("nan"), float("inf"),
    "", "0", "digits", "../../etc/passwd", "/etc/passwd", "x" * 1_000_000, "\0", "\ud800", "डिजिट",
    [], [0], ["digits"], {}, {"sample": 0}, [[[[]]]],
]  # fmt: skip


def name_of(value: object) -> str:
    return ascii(value)[:20]


@pytest.fixture(scope="module")
def common(shelf, tmp_path_factory) -> Lab:
    folder = tmp_path_factory.mktemp("common")
    return Lab(data_dir=folder, cache_dir=folder, checkpoints_dir=shelf)


def expect_sentence(call: Callable[[], dict]) -> None:
    """Expect an answer that is JSON, or one sentence of bearable length."""
    try:
        json.dumps(call(), allow_nan=False)
    except SREError as error:
        said = str(error)
        assert 10 < len(said) < 600
        assert "\n" not in said
        assert not said.endswith(".")
        json.dumps(said)


@pytest.mark.parametrize("value", HOSTILE, ids=name_of)
@pytest.mark.parametrize(
    "name", ["dataset", "sample", "upload", "protocol", "target", "ticket", "session"]
)
def test_hostile_orbits(common, name, value):
    expect_sentence(lambda: ask(common, **{name: value}))


@pytest.mark.parametrize("value", HOSTILE, ids=name_of)
def test_hostile_everything_else(common, value):
    for place in range(4):
        for call, good in (
            (common.gallery, ["digits", None, 0, 10]),
            (common.find, ["digits", "random", None, "disc"]),
        ):
            given = [*good[:place], value, *good[place + 1 :]]
            expect_sentence(lambda call=call, given=given: call(*given))
    expect_sentence(lambda: common.find("digits", "sre_wrong", value, "disc"))
    expect_sentence(lambda: common.upload(b"no picture", value, "digits"))
    expect_sentence(lambda: common.upload(b"no picture", "x", value))
    expect_sentence(lambda: common.download_progress(value))
    if value != "breastmnist":
        expect_sentence(lambda: common.download(value))
    assert not common._fetching


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"dataset": "digit"}, UnknownNameError, r"^unknown data set 'digit'; did you mean"),
        ({"dataset": 7}, SettingError, r"^dataset must be a text, got '7'$"),
        ({"dataset": "x" * 201}, SettingError,
         r"^dataset must be a text of at most 200 characters, got 201$"),
        ({"protocol": "Disc"}, UnknownNameError, r"^unknown protocol 'Disc'; did you mean 'disc'"),
        ({"sample": None}, SettingError, r"^sample must be a whole number, got 'None'$"),
        ({"sample": True}, SettingError, r"^sample must be a whole number, got 'True'$"),
        ({"sample": 400}, SettingError, r"^sample must be from 0 to 399, got 400$"),
        ({"sample": -1}, SettingError, r"^sample must be from 0 to 399, got -1$"),
        ({"sample": 2**53 + 1}, SettingError,
         r"^sample must be a whole number of at most 2\*\*53, got a larger one$"),
        ({"target": "3"}, SettingError, r"^target must be a whole number, got '3'$"),
        ({"session": {}}, SettingError, r"^session must be a text, got '{}'$"),
    ],
    ids=lambda value: name_of(value) if isinstance(value, dict) else "",
)  # fmt: skip
def test_refusals(common, change, kind, message):
    with pytest.raises(kind, match=message):
        ask(common, **change)
