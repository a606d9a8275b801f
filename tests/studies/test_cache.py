import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sre.errors import Dropped
from sre.studies.cache import TextCache

WAIT_S = 10  # at most, for what takes milliseconds


class Computer:
    """Counts how often it computes, and can be held up."""

    def __init__(self, answer: str = "answer"):
        self.answer, self.calls = answer, 0
        self.begun, self.may_end = threading.Event(), threading.Event()
        self.may_end.set()

    def __call__(self, is_wanted: Callable[[], bool]) -> str:
        self.calls += 1
        self.begun.set()
        assert self.may_end.wait(WAIT_S)
        if not is_wanted():
            raise Dropped("nobody waits")
        return self.answer


class Visitor:
    """Wants an answer until it leaves."""

    def __init__(self):
        self.stays = True

    def is_there(self) -> bool:
        return self.stays


@pytest.fixture
def cache(tmp_path: Path) -> TextCache:
    return TextCache(tmp_path / "orbits")


def never(is_wanted: Callable[[], bool]) -> str:
    raise AssertionError("computed again")


def followers(cache: TextCache, key: str, count: int) -> None:
    """Wait until so many callers wait for a key."""
    end = time.monotonic() + WAIT_S
    while len(cache._flights[key].wanted) < count:
        assert time.monotonic() < end
        time.sleep(0.001)


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_an_answer_is_computed_once(cache):
    compute = Computer("é\n{}")  # text is kept to the letter
    assert cache.fetch("a", compute) == "é\n{}"
    assert cache.fetch("a", never) == "é\n{}"
    assert cache.fetch("b", Computer("other")) == "other"
    assert compute.calls == 1


def test_an_answer_survives_a_restart(cache):
    cache.fetch("a", Computer("é\n{}"))
    assert TextCache(cache.folder).fetch("a", never) == "é\n{}"
    assert files(cache.folder) == {"a.txt"}


def test_thirty_at_once_compute_once(cache):
    compute = Computer()
    compute.may_end.clear()
    with ThreadPoolExecutor(30) as pool:
        waiting = [pool.submit(cache.fetch, "a", compute) for _ in range(30)]
        followers(cache, "a", 30)
        compute.may_end.set()
        assert {w.result(WAIT_S) for w in waiting} == {"answer"}
    assert compute.calls == 1
    assert cache._flights == {}


def test_other_keys_do_not_wait(cache):
    slow = Computer("slow")
    slow.may_end.clear()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(cache.fetch, "a", slow)
        assert slow.begun.wait(WAIT_S)
        assert cache.fetch("b", Computer("quick")) == "quick"
        slow.may_end.set()
        assert waiting.result(WAIT_S) == "slow"


# Faults


def test_a_fault_reaches_all_who_wait_and_is_not_kept(cache):
    begun, may_fail = threading.Event(), threading.Event()

    def fail(is_wanted: Callable[[], bool]) -> str:
        begun.set()
        assert may_fail.wait(WAIT_S)
        raise ValueError("out of luck")

    with ThreadPoolExecutor(5) as pool:
        waiting = [pool.submit(cache.fetch, "a", fail) for _ in range(5)]
        followers(cache, "a", 5)
        may_fail.set()
        for w in waiting:
            with pytest.raises(ValueError, match="out of luck"):
                w.result(WAIT_S)
    assert not cache.folder.exists()
    assert cache.fetch("a", Computer("now")) == "now"


# Visitors who move on


def test_an_answer_that_nobody_wants_is_dropped(cache):
    visitor, compute = Visitor(), Computer()
    compute.may_end.clear()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(cache.fetch, "a", compute, is_wanted=visitor.is_there)
        assert compute.begun.wait(WAIT_S)
        visitor.stays = False
        compute.may_end.set()
        with pytest.raises(Dropped, match="nobody waits"):
            waiting.result(WAIT_S)
    assert cache.fetch("a", Computer("now")) == "now"


@pytest.mark.parametrize("who_leaves", ["first", "second"])
def test_who_stays_gets_the_answer(cache, who_leaves):
    visitors = {"first": Visitor(), "second": Visitor()}
    compute = Computer()
    compute.may_end.clear()
    with ThreadPoolExecutor(2) as pool:
        waiting = []
        for count, visitor in enumerate(visitors.values(), 1):
            waiting.append(pool.submit(cache.fetch, "a", compute, is_wanted=visitor.is_there))
            assert compute.begun.wait(WAIT_S)
            followers(cache, "a", count)
        visitors[who_leaves].stays = False
        compute.may_end.set()
        # The work was done: who left gets it too.
        assert [w.result(WAIT_S) for w in waiting] == ["answer", "answer"]
    assert compute.calls == 1


def test_who_comes_just_as_the_others_leave_starts_afresh(cache):
    leaver, latecomer = Visitor(), Visitor()
    begun, may_end = threading.Event(), threading.Event()

    def give_up(is_wanted: Callable[[], bool]) -> str:
        leaver.stays = False
        assert not is_wanted()
        begun.set()
        assert may_end.wait(WAIT_S)  # decided, but not gone yet
        raise Dropped("nobody waits")

    compute = Computer("for the latecomer")
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(cache.fetch, "a", give_up, is_wanted=leaver.is_there)
        assert begun.wait(WAIT_S)
        second = pool.submit(cache.fetch, "a", compute, is_wanted=latecomer.is_there)
        followers(cache, "a", 2)
        may_end.set()
        with pytest.raises(Dropped):
            first.result(WAIT_S)
        assert second.result(WAIT_S) == "for the latecomer"


def test_whose_own_visitor_left_does_not_start_afresh(cache):
    gone = Visitor()
    gone.stays = False
    with pytest.raises(Dropped):
        cache.fetch("a", Computer(), is_wanted=gone.is_there)


def test_what_is_there_is_given_to_anybody(cache):
    cache.fetch("a", Computer())
    assert cache.fetch("a", never, is_wanted=lambda: False) == "answer"


# Bounds


def test_memory_holds_the_most_recently_used(tmp_path):
    (tmp_path / "file").write_text("")
    cache = TextCache(tmp_path / "file", memory_bytes=10)  # no disk
    for key in "abc":
        cache.fetch(key, Computer(key * 3))
    cache.fetch("a", never)
    cache.fetch("d", Computer("ddd"))
    assert list(cache._memory) == ["c", "a", "d"]
    assert cache._held_bytes == 9
    cache.fetch("e", Computer("e" * 100))  # one larger than all: it alone
    assert list(cache._memory) == ["e"]
    assert cache._held_bytes == 100


def test_the_folder_holds_the_most_recently_used(tmp_path):
    size = len(b"crc32 01234567\n" + b"x" * 100)
    cache = TextCache(tmp_path, memory_bytes=1, disk_bytes=3 * size)
    for age, key in enumerate("abc"):
        cache.fetch(key, Computer("x" * 100))
        os.utime(tmp_path / f"{key}.txt", (1000 + age, 1000 + age))
    cache.fetch("a", never)  # read from the folder, which makes it the newest
    cache.fetch("d", Computer("x" * 100))
    assert files(tmp_path) == {"a.txt", "c.txt", "d.txt"}


def test_what_a_crash_left_behind_leaves_first(tmp_path):
    (tmp_path / "tmpold.part").write_bytes(b"x" * 1000)
    os.utime(tmp_path / "tmpold.part", (1000, 1000))
    (tmp_path / "notes.md").write_text("mine")
    cache = TextCache(tmp_path, disk_bytes=500)
    cache.fetch("a", Computer("x" * 100))
    assert files(tmp_path) == {"a.txt", "notes.md"}


# Files and folders that cannot be trusted


@pytest.mark.parametrize("damage", ["half", "all but one", "one bit", "empty", "older", "binary"])
def test_damaged_files_are_computed_anew(cache, damage):
    cache.fetch("a", Computer('{"x": 1}'))
    path = cache.folder / "a.txt"
    whole = path.read_bytes()
    path.write_bytes(
        {
            "half": whole[: len(whole) // 2],
            "all but one": whole[:-1],
            "one bit": whole[:-2] + bytes([whole[-2] ^ 1]) + whole[-1:],
            "empty": b"",
            "older": b'{"x": 1}',
            "binary": b"\xff\xfe\n\x80",
        }[damage]
    )
    again = Computer('{"x": 2}')
    assert TextCache(cache.folder).fetch("a", again) == '{"x": 2}'
    assert TextCache(cache.folder).fetch("a", never) == '{"x": 2}'


def test_a_folder_in_the_place_of_a_file_costs_speed_only(cache):
    (cache.folder / "a.txt").mkdir(parents=True)
    assert cache.fetch("a", Computer()) == "answer"
    assert cache.fetch("a", never) == "answer"
    assert files(cache.folder) == {"a.txt"}


def test_a_file_in_the_place_of_the_folder_costs_speed_only(tmp_path):
    (tmp_path / "file").write_text("mine")
    cache = TextCache(tmp_path / "file" / "orbits")
    assert cache.fetch("a", Computer()) == "answer"
    assert cache.fetch("a", never) == "answer"
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("broken", ["mkstemp", "replace", "utime"])
def test_a_read_only_or_full_disk_costs_speed_only(cache, monkeypatch, broken):
    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    cache.fetch("a", Computer("kept"))
    monkeypatch.setattr(f"{'tempfile' if broken == 'mkstemp' else 'os'}.{broken}", fail)
    again = TextCache(cache.folder)
    assert again.fetch("a", never) == "kept"
    assert again.fetch("b", Computer()) == "answer"
    assert again.fetch("b", never) == "answer"
    assert "a.txt" in files(cache.folder)
    assert not [name for name in files(cache.folder) if name.endswith(".part")]


def test_a_full_disk_leaves_no_half_file(cache):
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        assert cache.fetch("a", Computer("x" * 100_000)) == "x" * 100_000
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert files(cache.folder) == set()


def test_two_processes_share_a_folder(cache):
    other = TextCache(cache.folder)
    cache.fetch("a", Computer("first"))
    assert other.fetch("a", never) == "first"
    other.fetch("b", Computer("second"))
    assert cache.fetch("b", never) == "second"
