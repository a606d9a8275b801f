"""What stands behind the pages is made when it is first needed."""

import pytest

from pages.backend import LateLab
from sre.errors import CheckpointError
from sre.studies.lab import Lab


@pytest.fixture
def late_lab(tmp_path):
    return LateLab(
        data_dir=tmp_path, cache_dir=tmp_path, checkpoints_dir=tmp_path, device="cpu"
    )  # fmt: skip


def test_even_the_first_visitor_begins_with_the_chosen_image(late_lab, monkeypatch):
    def choose_opening(lab):
        lab._opening = "cells", {"index": 53, "note": "Chosen."}

    monkeypatch.setattr(Lab, "choose_opening", choose_opening)
    assert late_lab().catalogue()["start"]["sample"] == 53
    assert late_lab() is late_lab()


def test_no_image_to_choose_hinders_nobody(late_lab, monkeypatch):
    def choose_opening(lab):
        raise CheckpointError("there is no network")

    monkeypatch.setattr(Lab, "choose_opening", choose_opening)
    assert late_lab().catalogue()["start"]["sample"] == 0
