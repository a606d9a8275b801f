import ast
import subprocess
import sys
from pathlib import Path

import pytest

from sre.data.table import DATASETS, find_dataset
from sre.errors import SettingError, UnknownNameError

MEDMNIST = [e for e in DATASETS.values() if e.source == "medmnist"]


def test_there_are_eighteen_and_two():
    assert len(MEDMNIST) == 18
    assert [e.name for e in DATASETS.values() if e.source == "built-in"] == ["cells", "digits"]
    assert sum(e.dimensions == 3 for e in MEDMNIST) == 6


@pytest.mark.parametrize("entry", DATASETS.values(), ids=lambda e: e.name)
def test_every_entry_is_complete(entry):
    assert find_dataset(entry.name) is entry
    assert entry.title
    assert entry.description
    assert len(entry.classes) >= 2
    assert all(entry.classes)
    assert entry.channels in (1, 3)
    assert list(entry.splits) == ["train", "val", "test"]
    assert min(entry.splits.values()) > 0
    assert entry.licence
    assert entry.citation


@pytest.mark.parametrize("entry", MEDMNIST, ids=lambda e: e.name)
def test_every_medmnist_size_has_a_file(entry):
    assert entry.sizes == ((28, 64, 128, 224) if entry.dimensions == 2 else (28, 64))
    assert "Yang et al., MedMNIST v2" in entry.citation
    for size in entry.sizes:
        archive = entry.archive(size)
        assert archive.url.startswith("https://zenodo.org/")
        assert entry.file_name(size) in archive.url
        assert len(bytes.fromhex(archive.md5)) == 16
        if archive.bytes is not None:
            assert archive.bytes < entry.bytes_at_most(size)


def test_golden_facts():
    blood = find_dataset("bloodmnist")
    assert blood.classes[0] == "basophil"
    assert blood.classes[7] == "platelet"
    assert dict(blood.splits) == {"train": 11959, "val": 1712, "test": 3421}
    assert (blood.task, blood.channels, blood.licence) == ("multi-class", 3, "CC BY 4.0")
    assert find_dataset("dermamnist").licence == "CC BY-NC 4.0"
    assert find_dataset("retinamnist").task == "ordinal-regression"
    assert find_dataset("chestmnist").is_multi_label
    assert len(find_dataset("chestmnist").classes) == 14
    assert find_dataset("breastmnist").classes == ("malignant", "normal, benign")
    assert find_dataset("breastmnist").archive(28).bytes == 559_580
    # 780 images of 28x28 grey bytes.
    assert find_dataset("breastmnist").bytes_at_most(28) == 780 * 784
    assert find_dataset("retinamnist").image_shape(64) == (64, 64, 3)
    assert find_dataset("organmnist3d").image_shape(28) == (28, 28, 28)
    assert blood.file_name(28) == "bloodmnist.npz"
    assert blood.file_name(224) == "bloodmnist_224.npz"


def test_the_built_in_sets_never_claim_to_be_medmnist():
    for name in ("cells", "digits"):
        entry = find_dataset(name)
        assert "mnist" not in repr((entry.title, entry.classes, entry.citation)).lower()
        assert entry.sizes == (28,)


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(UnknownNameError, match="unknown data set 'bloodmist'; did you mean 'bloo"):
        find_dataset("bloodmist")
    with pytest.raises(UnknownNameError, match="choose from pathmnist, chestmnist"):
        find_dataset("???")


def test_a_size_that_is_not_there_is_named():
    with pytest.raises(SettingError, match=r"OrganMNIST3D has no size of 128 px; .* 28, 64"):
        find_dataset("organmnist3d").file_name(128)
    with pytest.raises(SettingError, match="Drawn cells is built in and has no file"):
        find_dataset("cells").file_name(28)


def test_the_table_agrees_with_the_package_without_importing_it(tmp_path):
    home = {"HOME": str(tmp_path), "USERPROFILE": str(tmp_path), "PYTHONPATH": sys.path[0]}
    root = Path(__file__).resolve().parents[2]
    code = (
        "import sys, sre.data.table, sre.data.store, sre.data.digits as d; d.make_digits('val');"
        "print([m for m in ('medmnist', 'torch', 'sklearn', 'scipy') if m in sys.modules])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=root, env=home, capture_output=True, text=True, check=True
    )
    assert ast.literal_eval(ran.stdout) == []
    assert list(tmp_path.iterdir()) == []  # medmnist itself makes ~/.medmnist
