import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier

import numpy as np
import pytest

from sre.data import store
from sre.data.store import file_md5, load_split, status
from sre.data.table import Archive, find_dataset
from sre.errors import DataError, SettingError, UnknownNameError
from tests.data.files import breast

BREAST = find_dataset("breastmnist")


def test_built_in_sets_need_no_folder(tmp_path):
    nowhere = tmp_path / "nowhere"
    for name in ("cells", "digits"):
        split = load_split(name, "val", data_dir=nowhere)
        assert len(split) == find_dataset(name).splits["val"]
        assert load_split(name, "val", data_dir=nowhere) is split
        assert status(find_dataset(name), data_dir=nowhere) == "built-in"
        assert file_md5(find_dataset(name), data_dir=nowhere) is None
    assert not nowhere.exists()


def test_a_missing_file_says_how_to_get_it(tmp_path):
    with pytest.raises(DataError, match=r"breastmnist.npz is not there; download BreastMNIST, or"):
        load_split("breastmnist", "test", data_dir=tmp_path)
    assert status(BREAST, data_dir=tmp_path) == "missing"
    assert file_md5(BREAST, data_dir=tmp_path) is None
    (tmp_path / "file").touch()
    assert status(BREAST, data_dir=tmp_path / "file") == "missing"


def test_wrong_names(tmp_path):
    with pytest.raises(UnknownNameError, match="did you mean 'breastmnist'"):
        load_split("brestmnist", "test", data_dir=tmp_path)
    with pytest.raises(SettingError, match="unknown split 'dev'; choose from train, val, test"):
        load_split("breastmnist", "dev", data_dir=tmp_path)
    with pytest.raises(SettingError, match="has no size of 32 px; choose from 28, 64, 128, 224"):
        load_split("breastmnist", "test", data_dir=tmp_path, size=32)
    with pytest.raises(SettingError, match="Drawn cells has no size of 64 px; choose from 28"):
        load_split("cells", "test", data_dir=tmp_path, size=64)


def test_a_split_is_shared_until_its_file_changes(tmp_path):
    path = tmp_path / "breastmnist.npz"
    np.savez(path, **breast(test=4))
    first = load_split("breastmnist", "test", data_dir=tmp_path)
    assert load_split("breastmnist", "test", data_dir=tmp_path) is first
    np.savez(path, **breast(test=6))
    assert len(load_split("breastmnist", "test", data_dir=tmp_path)) == 6
    with pytest.raises(ValueError, match="read-only"):
        first.images[0] = 0


def test_a_large_split_is_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "_CACHED_AT_MOST", 1000)
    np.savez(tmp_path / "breastmnist.npz", **breast())
    first = load_split("breastmnist", "test", data_dir=tmp_path)
    assert load_split("breastmnist", "test", data_dir=tmp_path) is not first


def test_status_follows_the_bytes(tmp_path):
    path = tmp_path / "breastmnist.npz"
    path.write_bytes(b"official")
    md5 = hashlib.md5(b"official").hexdigest()
    entry = replace(BREAST, archives={28: Archive("http://localhost/", md5, 8)})
    assert status(entry, data_dir=tmp_path) == "official"
    assert file_md5(entry, data_dir=tmp_path) == md5
    path.write_bytes(b"another")
    assert status(entry, data_dir=tmp_path) == "other"
    path.unlink()
    assert status(entry, data_dir=tmp_path) == "missing"


def test_an_unchanged_file_is_summed_once(tmp_path):
    path = tmp_path / "breastmnist.npz"
    path.write_bytes(b"a")
    store._md5.cache_clear()
    for _ in range(3):
        status(BREAST, data_dir=tmp_path)
    assert store._md5.cache_info().misses == 1
    os.utime(path, ns=(1, 1))
    status(BREAST, data_dir=tmp_path)
    assert store._md5.cache_info().misses == 2


def test_a_folder_in_the_place_of_the_file(tmp_path):
    (tmp_path / "breastmnist.npz").mkdir()
    with pytest.raises(DataError, match=r"breastmnist.npz cannot be read \(Is a directory\); make"):
        status(BREAST, data_dir=tmp_path)
    with pytest.raises(DataError, match="cannot be read"):
        load_split("breastmnist", "test", data_dir=tmp_path)


def test_thirty_first_visitors_share_one_drawing(tmp_path):
    store.make_digits.cache_clear()
    gate = Barrier(30)

    def visit(_: int) -> object:
        gate.wait()
        return load_split("digits", "test", data_dir=tmp_path)

    with ThreadPoolExecutor(30) as pool:
        seen = list(pool.map(visit, range(30)))
    assert all(split is seen[0] for split in seen)
    assert store.make_digits.cache_info().misses == 1


def test_real_files_are_told_from_rebuilt_ones(data_dir):
    found = {n: status(find_dataset(n), data_dir=data_dir) for n in ("breastmnist", "retinamnist")}
    assert set(found.values()) == {"official"}
    assert status(find_dataset("bloodmnist"), data_dir=data_dir) in ("official", "other")
