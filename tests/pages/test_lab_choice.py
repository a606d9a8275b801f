"""Another network in a column of the Lab: picked, in the address, and back."""

import pytest

from sre.studies.shelf import trained_dir
from tests.pages.conftest import save_untrained

pytestmark = pytest.mark.browser
GMR = "trained:cells-gmr_resnet18-w8.safetensors"


@pytest.fixture
def trained(late_lab):
    """A network trained on the page, beside the three that the app brings."""
    folder = trained_dir(late_lab().cache_dir)
    save_untrained(folder, "cells", "gmr_resnet18", False)
    yield
    for path in folder.iterdir():
        path.unlink()


def titles(page) -> list[str]:
    return page.tab.locator(".lab-model h3").all_inner_texts()


def test_without_a_choice_there_is_nothing_to_choose(page):
    assert page.tab.locator(".lab-choose").count() == 0
    assert "networks" not in page.query()


def test_a_network_is_picked_and_stays_in_the_address(trained, new_page):
    page = new_page().open()
    assert titles(page) == ["SRE-CNN", "CNN", "CNN + rotation"]
    page.tab.get_by_label("Network of column 2").select_option(GMR)
    page.wait(
        "sreLab.bundle.networks[1].startsWith('trained:') && sreLab.shownTicket === sreLab.ticket"
    )
    assert titles(page) == ["SRE-CNN", "GMR-CNN", "CNN + rotation"]
    names = page.query()["networks"].split(",")
    assert names[1] == GMR
    # What stands elsewhere changes places.
    page.tab.get_by_label("Network of column 1").select_option(GMR)
    page.wait(
        "sreLab.bundle.networks[0].startsWith('trained:') && sreLab.shownTicket === sreLab.ticket"
    )
    assert titles(page) == ["GMR-CNN", "SRE-CNN", "CNN + rotation"]
    page.tab.reload()
    page.wait_ready()
    assert titles(page) == ["GMR-CNN", "SRE-CNN", "CNN + rotation"]
    lines = page.get("sreLab.bundle.models.map((model) => model.line)")
    assert sorted(lines) == ["augmented", "plain", "sre"]
    page.tab.go_back()
    page.wait("sreLab.bundle.networks[1].startsWith('trained:')")
    assert page.problems == []


def test_a_link_from_training_shows_the_network_and_no_sideways_scroll(trained, new_page):
    page = new_page(width=390).open(f"dataset=cells&network={GMR}")
    assert titles(page) == ["SRE-CNN", "CNN", "GMR-CNN"]
    assert "network" not in page.query()
    assert page.get("document.documentElement.scrollWidth") <= 390


def test_a_network_that_is_not_there_is_said(new_page):
    page = new_page().open("dataset=cells&networks=nonsense")
    assert "the network “nonsense”, which" in page.words("notices")
    assert titles(page) == ["SRE-CNN", "CNN", "CNN + rotation"]
