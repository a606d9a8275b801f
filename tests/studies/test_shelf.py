"""Which networks there are for a data set, and which of them the columns show."""

import re
from pathlib import Path

import pytest

from sre.data.table import find_dataset
from sre.errors import SREError
from sre.studies.lab import Lab
from sre.studies.shelf import choose, list_shelf, networks_of, titles, trained_dir, usual
from tests.networks import write_checkpoint

DIGITS = find_dataset("digits")


@pytest.fixture
def folders(tmp_path) -> tuple[Path, Path]:
    """The app's folder with two arms, and a cache folder."""
    own, cache = tmp_path / "own", tmp_path / "cache"
    for width in (4, 2):
        write_checkpoint(own, width=width)
    write_checkpoint(own, model="resnet18", width=2)
    return own, cache


def names(folders) -> list[str]:
    return [n.name for n in usual(networks_of(list_shelf(*folders), DIGITS))]


def test_the_app_s_narrowest_of_each_arm_are_usual_and_the_trained_stand_in(folders):
    own = ["digits-sre_resnet18-w2.safetensors", "digits-resnet18-w2.safetensors"]
    assert names(folders) == own
    write_checkpoint(trained_dir(folders[1]), width=1)
    write_checkpoint(trained_dir(folders[1]), model="gmr_resnet18", width=1)
    assert names(folders) == own  # narrower, but not the app's
    write_checkpoint(trained_dir(folders[1]), model="resnet18", rotates_in_training=True, width=9)
    assert names(folders) == [*own, "trained:digits-resnet18-rotated-w9.safetensors"]


def test_another_family_alone_is_shown_all_the_same(folders):
    write_checkpoint(trained_dir(folders[1]), model="gmr_resnet18", width=1)
    assert names((folders[0] / "none", folders[1])) == [
        "trained:digits-gmr_resnet18-w1.safetensors"
    ]


def test_one_name_in_two_folders_is_two_networks(folders):
    write_checkpoint(trained_dir(folders[1]), width=2)
    found = networks_of(list_shelf(*folders), DIGITS)
    assert len(found) == 4
    called = titles(found)
    assert called["trained:digits-sre_resnet18-w2.safetensors"] == "SRE-CNN, width 2, trained here"
    assert called["digits-sre_resnet18-w2.safetensors"] == "SRE-CNN, width 2"


def test_other_classes_and_large_sides_are_left_out(folders):
    write_checkpoint(trained_dir(folders[1]), width=3, side_px=72)
    write_checkpoint(trained_dir(folders[1]), width=5, classes=("a", "b"))
    assert len(networks_of(list_shelf(*folders), DIGITS)) == 3


def test_a_network_of_another_side_says_so_and_is_not_the_usual_one(folders):
    usual_ones = names(folders)
    write_checkpoint(folders[0], width=1, side_px=42)
    found = networks_of(list_shelf(*folders), DIGITS)
    assert titles(found)["digits-sre_resnet18-w1.safetensors"] == "SRE-CNN, width 1, at 42 px"
    assert names(folders) == usual_ones


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("x", "networks must be a list of names, got 'x'"),
        ([1], r"networks must be a list of names, got '\[1\]'"),
        ([], "networks must be 1 to 3 different names, got 0"),
        (list("abcd"), "networks must be 1 to 3 different names, got 4"),
        (["a", "a"], "networks must be 1 to 3 different names, got 2"),
        (["../x"], r"there is no network '\.\./x' for this data set; choose another"),
    ],
)
def test_what_cannot_be_chosen(folders, asked, message):
    with pytest.raises(SREError, match=message):
        choose(networks_of(list_shelf(*folders), DIGITS), asked)


def test_the_lab_shows_what_was_chosen(folders):
    own, cache = folders
    write_checkpoint(trained_dir(cache), model="gmr_resnet18", width=1)
    lab = Lab(data_dir=own, cache_dir=cache, checkpoints_dir=own)
    row = next(r for r in lab.catalogue()["datasets"] if r["name"] == "digits")
    assert row["usual"] == names(folders)
    assert {n["arm"] for n in row["networks"]} == {"sre", "plain", "gmr"}
    chosen = [
        "trained:digits-gmr_resnet18-w1.safetensors",
        "digits-sre_resnet18-w4.safetensors",
        "digits-sre_resnet18-w2.safetensors",
    ]
    found = lab.orbit("digits", 0, None, "disc", None, 0, "", chosen)
    assert found["networks"] == chosen
    assert [m["title"] for m in found["models"]] == [
        "GMR-CNN", "SRE-CNN of width 4", "SRE-CNN of width 2",
    ]  # fmt: skip
    # Where none of these untrained ones changes its mind, they are named with their right answers.
    for name in ("GMR", "SRE of width 4"):
        assert re.search(rf"{name} (changes its mind|never changes its mind|at)", found["headline"])
    assert lab.find("digits", "sre_wrong", None, "disc", chosen[:1])["index"] >= 0
