import errno
import hashlib
import os
import shutil
import socket
import subprocess
import sys
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Event

import pytest
from filelock import FileLock

from sre.data.download import _FLIGHTS, current_progress, download
from sre.data.table import Archive, find_dataset
from sre.errors import DataError, Dropped, SettingError
from tests.data.server import drops, ranged, says, sends, serving, whole

CONTENT = bytes(range(256)) * 1200  # 307,200 bytes
NAME = "breastmnist.npz"
LOCK = f".{NAME}.lock"


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    yield
    assert not _FLIGHTS


@pytest.fixture
def server():
    with serving(CONTENT) as server:
        yield server


@pytest.fixture
def entry(server):
    archive = Archive(server.url, hashlib.md5(CONTENT).hexdigest(), None)
    return replace(find_dataset("breastmnist"), archives={28: archive})


@pytest.fixture
def fetch(entry, tmp_path):
    """Download with no pause between the tries."""

    def fetch(folder=tmp_path, **options):
        return download(entry, 28, folder, **{"pauses_s": (0, 0, 0), "timeout_s": 5, **options})

    return fetch


@pytest.fixture
def refuse(fetch, tmp_path):
    """Expect one sentence, and nothing left but what is named."""

    def refuse(match, left=(), **options):
        with pytest.raises(DataError, match=match) as caught:
            fetch(**options)
        text = str(caught.value)
        assert NAME in text
        assert "; " in text
        assert "\n" not in text
        assert not text.endswith(".")
        assert {p.name for p in tmp_path.iterdir()} - {LOCK} == set(left)

    return refuse


def test_a_file_arrives_whole_with_progress(fetch, server, tmp_path):
    seen = []
    path = fetch(tmp_path / "new" / "folder", on_progress=seen.append)
    assert path == tmp_path / "new" / "folder" / NAME
    assert path.read_bytes() == CONTENT
    assert {p.name for p in path.parent.iterdir()} - {LOCK} == {NAME}
    assert seen[-1].state == "done"
    assert (seen[-1].done, seen[-1].total) == (len(CONTENT), len(CONTENT))
    assert [p.done for p in seen] == sorted(p.done for p in seen)
    assert {"downloading", "checking"} <= {p.state for p in seen}
    assert fetch(path.parent) == path  # there already: nothing is asked for
    assert len(server.seen) == 1


def test_another_address_must_have_the_same_bytes(fetch, server, refuse, tmp_path):
    with serving(b"else") as other:
        refuse("the bytes from 127.0.0.1:.* are not the official ones", url=other.url)
    assert not server.seen
    assert fetch(url=server.url + "&mirror").read_bytes() == CONTENT


def test_built_in_and_unknown_sizes(fetch, entry, tmp_path):
    with pytest.raises(SettingError, match="Drawn cells is built in"):
        download(find_dataset("cells"), 28, tmp_path)
    with pytest.raises(SettingError, match="has no size of 64 px"):
        download(entry, 64, tmp_path)


@pytest.mark.parametrize("code", [429, 500, 503])
def test_a_passing_fault_is_tried_again(fetch, server, code):
    server.answers = [says(code), says(code), whole]
    seen = []
    assert fetch(on_progress=seen.append).read_bytes() == CONTENT
    assert len(server.seen) == 3
    told = [p.message for p in seen if p.state == "retrying"]
    assert f"answered {code} " in told[0]


def test_pauses_grow_as_told(fetch, server, monkeypatch):
    slept = []
    monkeypatch.setattr("sre.data.transfer.Transfer._sleep", lambda self, s: slept.append(s))
    server.answers = [says(500), says(500), whole]
    fetch(pauses_s=(1, 2, 4))
    assert slept == [1, 2]


def test_a_lasting_500_ends(refuse, server):
    server.answers = [says(500)]
    refuse("answered 500 Internal Server Error; try again later, or put the file from http")
    assert len(server.seen) == 4


@pytest.mark.parametrize("code", [403, 404, 410])
def test_a_404_is_not_tried_again(refuse, server, code):
    server.answers = [says(code)]
    refuse(f"{NAME} was not downloaded: 127.0.0.1:.* answered {code} .*; check the network, or put")
    assert len(server.seen) == 1


def test_a_broken_transfer_is_resumed(fetch, server):
    server.answers = [ranged(drop_after=100_000), ranged(drop_after=50_000), ranged()]
    seen = []
    assert fetch(on_progress=seen.append).read_bytes() == CONTENT
    assert [headers.get("Range") for headers in server.seen] == [
        None,
        "bytes=100000-",
        "bytes=150000-",
    ]
    assert server.seen[1]["If-Range"] == '"one"'
    told = [p.message for p in seen if p.state == "retrying"]
    assert "broke off after 0.1 MB of 0.3 MB; trying again" in told[0]


def test_a_server_that_ignores_range_is_asked_from_the_start(fetch, server):
    server.answers = [drops(100_000), whole]
    assert fetch().read_bytes() == CONTENT
    assert server.seen[1]["Range"] == "bytes=100000-"


def test_what_can_be_resumed_is_kept_for_the_next_call(fetch, refuse, server):
    server.answers = [ranged(drop_after=100_000)]
    refuse(
        "broke off after 0.1 MB of 0.3 MB; .*goes on from the 0.1 MB that are kept",
        left=[f"{NAME}.part"],
        pauses_s=(),
    )
    server.answers = [ranged()]
    assert fetch().read_bytes() == CONTENT
    assert server.seen[-1]["Range"] == "bytes=100000-"


def test_what_cannot_be_resumed_is_removed(refuse, server):
    server.answers = [drops(100_000)]
    refuse("broke off after 0.1 MB of 0.3 MB; try again later, or put the file from")


def test_a_file_that_changed_meanwhile_is_fetched_anew(fetch, server):
    def change(handler):
        server.content = CONTENT
        ranged(etag='"two"')(handler)

    server.content = CONTENT[::-1]
    server.answers = [ranged(drop_after=100_000), change]
    assert fetch().read_bytes() == CONTENT
    assert len(server.seen) == 2


def test_pieces_of_two_versions_are_fetched_anew(fetch, server, tmp_path):
    (tmp_path / f"{NAME}.part").write_bytes(b"x" * 1000)
    server.answers = [ranged(trusts=False)]
    assert fetch().read_bytes() == CONTENT
    assert [headers.get("Range") for headers in server.seen] == ["bytes=1000-", None]


@pytest.mark.parametrize("part", [CONTENT, CONTENT + b"more", CONTENT[::-1]])
def test_a_part_that_is_long_enough(fetch, server, tmp_path, part):
    (tmp_path / f"{NAME}.part").write_bytes(part)
    server.answers = [ranged()]
    assert fetch().read_bytes() == CONTENT
    assert len(server.seen) == (1 if part == CONTENT else 2)


def test_another_piece_than_asked_for(fetch, server, tmp_path):
    (tmp_path / f"{NAME}.part").write_bytes(b"x" * 1000)
    server.answers = [says(206, Content_Range="bytes 0-9/10"), whole]
    assert fetch().read_bytes() == CONTENT


@pytest.mark.parametrize("body", [b"", b"<html>Please log in", CONTENT[:-1], CONTENT + b"x"])
def test_wrong_bytes(refuse, server, body):
    server.answers = [sends(body)]
    refuse("the bytes from 127.0.0.1:.* are not the official ones; check that the network")
    assert len(server.seen) == 1


def test_too_large(refuse, server):
    server.answers = [lambda handler: handler.head(200, Content_Length=10**12)]
    refuse("sends 1000000.0 MB, more than the set can hold; check the network")
    server.answers = [sends(bytes(2_500_000))]
    refuse("more than the set can hold")


def test_a_server_that_falls_silent(refuse, server):
    gate = Event()

    def hang(handler):
        handler.head(200, Content_Length=len(CONTENT))
        gate.wait(5)

    server.answers = [hang]
    try:
        refuse("127.0.0.1:.* broke off .timed out.; try again later", pauses_s=(), timeout_s=0.1)
    finally:
        gate.set()


def test_nonsense_in_place_of_http(refuse, server):
    server.answers = [lambda handler: handler.wfile.write(b"SSH-2.0-OpenSSH\r\n\r\n")]
    refuse("127.0.0.1:.* broke off .no proper HTTP answer.; try again later", pauses_s=())


def test_no_network(refuse, server, monkeypatch):
    def fail(*args, **kwargs):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    url = "https://zenodo.org/breastmnist.npz"
    refuse(
        "zenodo.org cannot be reached .Name or service not known.; check the network, or put the "
        "file from https://zenodo.org/breastmnist.npz into",
        url=url,
    )


def test_nobody_listens(refuse):
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    refuse("cannot be reached .Connection refused.; try again", url=f"http://127.0.0.1:{port}/")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_a_disk_that_fills_up(refuse, server, tmp_path):
    (tmp_path / f"{NAME}.part").symlink_to("/dev/full")  # every write fails with ENOSPC
    refuse("the disk of .* is full, .* are needed; free some space and download it again")


def test_a_disk_that_is_too_small(refuse, server, monkeypatch):
    usage = namedtuple("usage", "total used free")(1, 1, 300_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    refuse("the disk of .* is full, 0.3 MB more are needed; free some space")


def test_a_folder_that_is_a_file(refuse, fetch, tmp_path):
    file = tmp_path / "file"
    file.touch()
    match = f"file cannot take {NAME} .it is a file.; choose a folder that you may write to"
    refuse(match, left=["file"], folder=file)
    refuse("cannot take .* .Not a directory.; choose", left=["file"], folder=file / "sub")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder(refuse, tmp_path):
    tmp_path.chmod(0o555)
    refuse("cannot take breastmnist.npz .Permission denied.; choose a folder")


def test_a_read_only_disk(refuse, monkeypatch, tmp_path):
    def fail(self, *args, **kwargs):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(self))

    monkeypatch.setattr(Path, "mkdir", fail)
    refuse("cannot take breastmnist.npz .Read-only file system.; choose a folder")


def test_other_bytes_are_never_overwritten(refuse, server, tmp_path):
    (tmp_path / NAME).write_bytes(b"mine")
    refuse("is there, with other bytes than the official ones; move it away", left=[NAME])
    assert (tmp_path / NAME).read_bytes() == b"mine"
    assert not server.seen


@pytest.mark.parametrize("resumable", [True, False])
def test_stopping(fetch, server, tmp_path, resumable):
    server.answers = [ranged() if resumable else whole]
    seen = []
    with pytest.raises(Dropped, match=r"the download of breastmnist\.npz was stopped"):
        fetch(on_progress=seen.append, should_stop=lambda: any(p.done for p in seen))
    left = {p.name for p in tmp_path.iterdir()} - {LOCK}
    assert left == ({f"{NAME}.part"} if resumable else set())


def test_stopping_between_tries(fetch, server):
    server.answers = [says(500)]
    seen = []
    with pytest.raises(Dropped):
        fetch(on_progress=seen.append, should_stop=lambda: bool(seen), pauses_s=(60,))


class Held:
    """A server that sends the second half when told, and callers who wait for it."""

    def __init__(self, server, entry, folder):
        self.server, self.entry, self.folder = server, entry, folder
        self.sent, self.gate, self.rest = Event(), Event(), CONTENT[200_000:]
        server.answers = [self.answer]

    def answer(self, handler):
        handler.head(200, Content_Length=len(CONTENT))
        handler.wfile.write(CONTENT[:200_000])
        self.sent.set()
        self.gate.wait(10)
        handler.wfile.write(self.rest)

    def wait_for(self, callers):
        self.sent.wait(10)
        path, tick = self.folder / NAME, Event()
        while path not in _FLIGHTS or len(_FLIGHTS[path].stops) < callers:
            tick.wait(0.01)


@pytest.fixture
def held(server, entry, tmp_path):
    held = Held(server, entry, tmp_path)
    yield held
    held.gate.set()


def test_thirty_callers_share_one_download(held, fetch, server, entry, tmp_path):
    seen = [[] for _ in range(30)]
    with ThreadPoolExecutor(30) as pool:
        calls = [pool.submit(fetch, on_progress=seen[i].append) for i in range(30)]
        held.wait_for(30)
        now = current_progress(entry, 28, tmp_path)
        held.gate.set()
        assert {call.result() for call in calls} == {tmp_path / NAME}
    assert now.state == "downloading"
    assert 0 < now.done < now.total == len(CONTENT)
    assert len(server.seen) == 1
    assert all(progress[-1].state == "done" for progress in seen)
    assert current_progress(entry, 28, tmp_path) is None


def test_thirty_callers_share_one_failure(held, fetch, server):
    held.rest = b""
    with ThreadPoolExecutor(30) as pool:
        calls = [pool.submit(fetch, pauses_s=()) for _ in range(30)]
        held.wait_for(30)
        held.gate.set()
        errors = [call.exception() for call in calls]
    assert len(server.seen) == 1
    assert {type(error) for error in errors} == {DataError}
    assert len({str(error) for error in errors}) == 1
    assert len({id(error) for error in errors}) == 30  # threads share no traceback


def test_whoever_leaves_leaves_the_others_alone(held, fetch, tmp_path):
    leave = Event()
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(fetch, should_stop=leave.is_set)
        held.wait_for(1)
        second = pool.submit(fetch, should_stop=leave.is_set)
        third = pool.submit(fetch)
        held.wait_for(3)
        leave.set()
        with pytest.raises(Dropped, match="nobody waits for it here"):
            second.result()
        assert not third.done()
        held.gate.set()
        assert third.result() == first.result() == tmp_path / NAME


def test_it_ends_when_everybody_has_left(held, fetch, tmp_path):
    leave = Event()
    with ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(fetch, should_stop=leave.is_set) for _ in range(2)]
        held.wait_for(2)
        leave.set()
        held.gate.set()
        assert {type(call.exception()) for call in calls} == {Dropped}
    assert not (tmp_path / NAME).exists()


def test_a_bug_in_one_caller_does_not_hang_the_others(held, fetch):
    def fail(progress):
        if held.gate.is_set():
            raise ZeroDivisionError

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(fetch, on_progress=fail)
        held.wait_for(1)
        second = pool.submit(fetch)
        held.wait_for(2)
        held.gate.set()
        assert isinstance(first.exception(), ZeroDivisionError)
        with pytest.raises(DataError, match=r"breastmnist\.npz was not downloaded: it broke off"):
            second.result()


def test_another_program_at_the_same_file_is_waited_for(fetch, server, tmp_path):
    waits = Event()
    with ThreadPoolExecutor(1) as pool:
        with FileLock(tmp_path / LOCK):
            call = pool.submit(fetch, on_progress=lambda p: p.state == "waiting" and waits.set())
            assert waits.wait(10)
            (tmp_path / NAME).write_bytes(CONTENT)
        assert call.result() == tmp_path / NAME
    assert not server.seen


def test_stopping_the_wait_for_another_program(fetch, tmp_path):
    seen = []
    with FileLock(tmp_path / LOCK), pytest.raises(Dropped):
        fetch(on_progress=seen.append, should_stop=lambda: bool(seen))


PROGRAM = """
import sys
from dataclasses import replace
from pathlib import Path
from sre.data.download import download
from sre.data.table import Archive, find_dataset
url, md5, folder = sys.argv[1:]
entry = replace(find_dataset("breastmnist"), archives={28: Archive(url, md5, None)})
download(entry, 28, Path(folder))
"""


def test_two_programs_fetch_it_once(held, server, entry, tmp_path):
    root = Path(__file__).resolve().parents[2]
    line = [sys.executable, "-c", PROGRAM, server.url, entry.archive(28).md5, str(tmp_path)]
    programs = [subprocess.Popen(line, cwd=root) for _ in range(2)]
    assert held.sent.wait(30)
    held.gate.set()
    assert [program.wait(30) for program in programs] == [0, 0]
    assert len(server.seen) == 1
    assert (tmp_path / NAME).read_bytes() == CONTENT
