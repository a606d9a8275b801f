import os
import time
import tracemalloc
import zipfile
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sre.data.archive import read_split
from sre.data.table import find_dataset
from sre.errors import DataError
from tests.data.files import breast, header, npy, write_zip

BREAST = find_dataset("breastmnist")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "breastmnist.npz"


def refuse(path, match, entry=BREAST, size=28, split="test"):
    with pytest.raises(DataError, match=match) as caught:
        read_split(path, entry, size, split)
    text = str(caught.value)
    assert str(path) in text
    assert "; " in text
    assert not text.endswith(".")
    assert "\n" not in text


def save_with(path, **changed):
    np.savez_compressed(path, **{**breast(), **changed})


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_sound_file_is_read(path, save, split):
    arrays = breast()
    save(path, **arrays)
    read = read_split(path, BREAST, 28, split)
    np.testing.assert_array_equal(read.images, arrays[f"{split}_images"])
    np.testing.assert_array_equal(read.labels, arrays[f"{split}_labels"][:, 0])
    assert read.labels.dtype == np.int64
    assert not read.images.flags.writeable


def test_colour_multi_label_and_volumes(tmp_path):
    rng = np.random.default_rng(0)
    for name, shape, labels in [
        ("bloodmnist", (6, 64, 64, 3), (6, 1)),
        ("chestmnist", (6, 64, 64), (6, 14)),
        ("organmnist3d", (6, 64, 64, 64), (6, 1)),
    ]:
        entry, path = find_dataset(name), tmp_path / f"{name}_64.npz"
        images = rng.integers(0, 256, shape, np.uint8)
        marks = rng.integers(0, 2, labels, np.uint8)
        np.savez(path, val_images=images, val_labels=marks)
        read = read_split(path, entry, 64, "val")
        np.testing.assert_array_equal(read.images, images)
        assert read.labels.shape == (labels if name == "chestmnist" else (6,))
        assert read.labels.dtype == (np.uint8 if name == "chestmnist" else np.int64)


def test_fortran_order_wide_labels_and_flat_labels(path):
    arrays = breast()
    save_with(
        path,
        test_images=np.asfortranarray(arrays["test_images"]),
        test_labels=arrays["test_labels"][:, 0].astype(">i4"),
    )
    read = read_split(path, BREAST, 28, "test")
    np.testing.assert_array_equal(read.images, arrays["test_images"])
    assert read.labels.tolist() == [0, 1, 0, 1]
    assert read.labels.dtype == np.int64
    assert read.labels.dtype.isnative


def test_a_link_to_a_file_is_read(path, tmp_path):
    np.savez(tmp_path / "elsewhere.npz", **breast())
    path.symlink_to(tmp_path / "elsewhere.npz")
    assert len(read_split(path, BREAST, 28, "val")) == 3


def test_missing_folder_and_unreadable(path, tmp_path):
    refuse(path, "is not there; download it")
    refuse(tmp_path, "cannot be read .Is a directory.; make it a file")
    path.symlink_to(path)
    refuse(path, "cannot be read .Too many levels of symbolic links.")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_forbidden_file(path):
    save_with(path)
    path.chmod(0)
    refuse(path, "cannot be read .Permission denied.; make it a file that you may read")


@pytest.mark.parametrize(
    "content", [b"", b"not a zip", b"PK\x03\x04" + b"\0" * 100, npy(np.ones(3))]
)
def test_no_archive(path, content):
    path.write_bytes(content)
    refuse(path, "is truncated, damaged or no .npz archive .*; delete it and download it again")


@pytest.mark.parametrize("share", [0.05, 0.5, 0.9, 0.999])
def test_truncated(path, share):
    save_with(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    refuse(path, "is truncated, damaged or no .npz archive")


@given(st.data())
def test_flipped_bytes_are_refused_or_harmless(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("flip") / "breastmnist.npz"
    arrays = breast(train=1, val=1, test=1)
    np.savez_compressed(path, **arrays)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    with suppress(DataError):
        read = read_split(path, BREAST, 28, "test")
        np.testing.assert_array_equal(read.images, arrays["test_images"])


def test_wrong_keys(path):
    np.savez(path, images=np.ones(3), labels=np.ones(3))
    refuse(path, "has no 'test_images', it holds 'images', 'labels'; delete it")
    write_zip(path, {})
    refuse(path, "has no 'test_images', it holds nothing")
    write_zip(path, {"a\nb" * 99: b""})
    refuse(path, "has no 'test_images', it holds 'a")
    arrays = breast()
    del arrays["test_labels"]
    np.savez(path, **arrays)
    refuse(path, "has no 'test_labels'")


@pytest.mark.parametrize(
    ("images", "match"),
    [
        (np.zeros((4, 28, 28), np.float32), "holds float32, not uint8, in 'test_images'"),
        (np.zeros((4, 28, 28), np.int8), "holds int8, not uint8"),
        (np.zeros((4, 64, 64), np.uint8), r"shape \(4, 64, 64\), not \(156, 28, 28\)"),
        (np.zeros((4, 28, 28, 3), np.uint8), r"shape \(4, 28, 28, 3\), not"),
        (np.zeros((0, 28, 28), np.uint8), r"shape \(0, 28, 28\), not"),
        (np.zeros((157, 28, 28), np.uint8), r"shape \(157, 28, 28\), not \(156, 28, 28\) as Brea"),
        (np.uint8(3), r"shape \(\), not"),
        (np.zeros(4, [("a", np.uint8)]), "holds no plain array in 'test_images'"),
        (np.zeros((4, 28, 28), "S1"), r"holds '\|S1' in 'test_images', which are no numbers"),
    ],
)
def test_wrong_images(path, images, match):
    save_with(path, test_images=images)
    refuse(path, match)
    assert len(read_split(path, BREAST, 28, "val")) == 3  # the other splits are still good


@pytest.mark.parametrize(
    ("labels", "match"),
    [
        (np.zeros((4, 1)), "holds float64, not integers, in 'test_labels'"),
        (np.zeros((4, 1), bool), "holds .* in 'test_labels'"),
        (np.zeros((3, 1), np.uint8), r"shape \(3, 1\), not \(4, 1\) as its images need"),
        (np.zeros((4, 2), np.uint8), r"shape \(4, 2\), not \(4, 1\)"),
        (np.full((4, 1), 2, np.uint8), "has labels from 2 to 2, BreastMNIST's go from 0 to 1"),
        (np.full((4, 1), -1, np.int64), "has labels from -1 to -1, BreastMNIST's go from 0 to 1"),
    ],
)
def test_wrong_labels(path, labels, match):
    save_with(path, test_labels=labels)
    refuse(path, match)


def test_multi_labels_are_zeros_and_ones(tmp_path):
    path, entry = tmp_path / "chestmnist.npz", find_dataset("chestmnist")
    images = np.zeros((2, 28, 28), np.uint8)
    np.savez(path, test_images=images, test_labels=np.full((2, 14), 2, np.uint8))
    refuse(path, "has labels from 2 to 2, ChestMNIST's go from 0 to 1", entry)
    np.savez(path, test_images=images, test_labels=np.zeros((2, 13), np.uint8))
    refuse(path, r"shape \(2, 13\), not \(2, 14\)", entry)


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("pickle-was-run",)


def test_pickles_are_never_run(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez(path, **{**breast(), "test_images": np.array([Bomb()], dtype=object)})
    refuse(path, "holds pickled objects in 'test_images', which are never opened")
    # Said to be bytes, but holding a pickle: just bytes of the wrong number.
    members = {f"{k}.npy": npy(v) for k, v in breast().items()}
    members["test_images.npy"] = npy(np.array([Bomb()], dtype=object))
    write_zip(path, members)
    refuse(path, "holds pickled objects")
    assert not (tmp_path / "pickle-was-run").exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x93NUMPY",
        b"\x93NUMPY\x09\x00\x10\x00",
        header("{'descr': __import__('os').getcwd(), 'fortran_order': False, 'shape': (4,), }"),
        header("(" * 3000),
        header("{'descr': '|u1', 'fortran_order': False, 'shape': (4, 28, 28), 'x': 1, }"),
        header("{'descr': '|u1', 'fortran_order': False, 'shape': (-4, 28, 28), }"),
        header("{'descr': '|u1', 'fortran_order': False, 'shape': (4L, 28L, 28L), }"),
        b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + b"{" * 50,
    ],
)
def test_hostile_headers(path, content):
    members = {f"{k}.npy": npy(v) for k, v in breast().items()}
    write_zip(path, {**members, "test_images.npy": content})
    refuse(path, "holds no plain array in 'test_images'")


def test_a_small_file_cannot_ask_for_much_memory(path):
    huge = header("{'descr': '|u1', 'fortran_order': False, 'shape': (999999999, 28, 28), }")
    members = {f"{k}.npy": npy(v) for k, v in breast().items()}
    # 60 MB of zeros, packed to 0.06 MB, behind a header that says 4 images.
    swollen = npy(breast()["test_images"])[:128] + bytes(60_000_000)
    tracemalloc.start()
    write_zip(path, {**members, "test_images.npy": huge})
    refuse(path, r"shape \(999999999, 28, 28\), not \(156, 28, 28\)")
    assert tracemalloc.get_traced_memory()[1] < 3_000_000
    tracemalloc.stop()
    write_zip(path, {**members, "test_images.npy": swollen})
    del swollen
    tracemalloc.start()
    refuse(path, "does not hold as many bytes as it says in 'test_images'")
    assert tracemalloc.get_traced_memory()[1] < 3_000_000
    tracemalloc.stop()


def test_sizes_that_lie(path):
    members = {f"{k}.npy": npy(v) for k, v in breast().items()}
    short = members["test_images.npy"][:-5]
    write_zip(path, {**members, "test_images.npy": short})
    refuse(path, "does not hold as many bytes as it says")
    # The zip directory says the right length, the packed stream ends early.
    write_zip(path, {**members, "test_images.npy": short}, zipfile.ZIP_STORED)
    content = path.read_bytes()
    for width in (4,):
        old, new = len(short).to_bytes(width, "little"), (len(short) + 5).to_bytes(width, "little")
        path.write_bytes(content.replace(old, new))
    refuse(path, "is truncated, damaged|ends early")


def test_encrypted_and_oddly_packed(path):
    members = {f"{k}.npy": npy(v) for k, v in breast().items()}
    write_zip(path, members, zipfile.ZIP_STORED)
    content = bytearray(path.read_bytes())
    for mark, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):  # the encryption flag
        start = -1
        while (start := content.find(mark, start + 1)) >= 0:
            content[start + at] |= 1
    path.write_bytes(content)
    refuse(path, "damaged or no .npz archive .*encrypted")
    write_zip(path, members, zipfile.ZIP_STORED)
    content = bytearray(path.read_bytes())
    for mark, at in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):  # the compression method
        start = -1
        while (start := content.find(mark, start + 1)) >= 0:
            content[start + at] = 97
    path.write_bytes(content)
    refuse(path, "damaged or no .npz archive .*compression method")


def test_one_split_costs_one_split(path):
    # 90 MB of train images are not touched on the way to 4 of test.
    entry = find_dataset("pathmnist")
    arrays = {
        "train_images": np.zeros((38_000, 28, 28, 3), np.uint8),
        "train_labels": np.zeros((38_000, 1), np.uint8),
        "test_images": np.zeros((4, 28, 28, 3), np.uint8),
        "test_labels": np.zeros((4, 1), np.uint8),
    }
    np.savez(path, **arrays)
    del arrays
    tracemalloc.start()
    start_s = time.perf_counter()
    assert len(read_split(path, entry, 28, "test")) == 4
    assert time.perf_counter() - start_s < 0.5
    assert tracemalloc.get_traced_memory()[1] < 3_000_000
    tracemalloc.stop()


@pytest.mark.parametrize("name", ["bloodmnist", "breastmnist", "pneumoniamnist", "retinamnist"])
def test_real_files(data_dir, name):
    entry = find_dataset(name)
    path = data_dir / entry.file_name(28)
    with np.load(path) as arrays:
        for split in ("val", "test"):
            read = read_split(path, entry, 28, split)
            assert len(read) == entry.splits[split]
            np.testing.assert_array_equal(read.images, arrays[f"{split}_images"])
            np.testing.assert_array_equal(read.labels, arrays[f"{split}_labels"][:, 0])
