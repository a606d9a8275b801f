"""The Evaluate page in a browser, and the requests that anyone may send it."""

import io
import json
import threading
from collections.abc import Iterator

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image

from pages import evaluate
from pages.backend import LateEvaluations
from sre.studies import evaluations as study
from sre.studies.evaluate_run import run_evaluation
from tests.pages.conftest import LabPage

IMAGES, QUICK_IMAGES = 40, 20  # for tests that stay quick


@pytest.fixture(scope="module", autouse=True)
def gate() -> Iterator[threading.Event]:
    """Few images; while the gate is closed, an evaluation of all of them stands still."""
    opened = threading.Event()
    opened.set()

    def run(*arguments, **settings):
        is_whole = settings["most_images"] is None
        settings |= {"most_images": settings["most_images"] or IMAGES, "resamples": 100}
        for event in run_evaluation(*arguments, **settings):
            yield event
            if is_whole:
                opened.wait(60)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study, "run_evaluation", run)
        patch.setattr(study, "QUICK_IMAGES", QUICK_IMAGES)
        yield opened


class EvaluatePage(LabPage):
    """The page in one tab."""

    def open(self, query: str = "dataset=digits") -> "EvaluatePage":
        self.tab.goto(f"{self.address}evaluate?{query}")
        return self.wait_shown()

    def wait_shown(self) -> "EvaluatePage":
        self.tab.wait_for_function("() => window.sreEvaluate && sreEvaluate.result")
        return self

    def wait(self, condition: str) -> None:
        self.tab.wait_for_function(f"() => {condition}")


@pytest.fixture
def opens(new_page) -> Iterator:
    made = []

    def make(query: str = "dataset=digits", **settings) -> EvaluatePage:
        page = new_page(**settings)
        found = EvaluatePage(page.tab, page.address, page.requests, page.problems)
        made.append(found)
        return found.open(query)

    yield make
    for page in made:
        assert page.problems == []


@pytest.mark.browser
def test_page_opens_on_a_quick_look_that_says_what_it_is(opens):
    page = opens()
    assert f"A quick look, so that this page does not open empty: {QUICK_IMAGES} of 400" in (
        page.words("subject")
    )
    assert page.words("headline").endswith((".", "!"))
    assert page.tab.locator("[data-ref=table] tbody tr").count() == 3
    assert page.tab.locator(".evaluate-matrix").count() == 3
    assert page.tab.locator("[data-ref=pairs] tbody tr").count() == 3
    networks = page.tab.locator("[data-ref=networks] label")
    assert "parameters · 1.00 million multiply-adds" in networks.first.inner_text()
    outside = [url for url in page.asked() if "127.0.0.1" not in url and "localhost" not in url]
    assert outside == []


@pytest.mark.browser
def test_link_restores_and_the_angle_moves_by_keyboard_and_by_the_plot(opens):
    page = opens("dataset=digits&protocol=disc&angle=60")
    slider = page.tab.locator("[data-ref=slider]")
    assert page.words("angleText") == "60°"
    slider.focus()
    page.tab.keyboard.press("ArrowRight")
    assert page.words("angleText") == "90°"
    assert page.query() == {"dataset": "digits", "protocol": "disc", "angle": "90"}
    assert page.words("changesTitle") == "Which answers change from 0° to 90°"
    box = page.tab.locator("[data-ref=polar] svg").bounding_box()
    page.tab.mouse.click(box["x"] + 60, box["y"] + box["height"] / 2)
    assert page.words("angleText") == "90°"  # left: counter-clockwise from the top
    page.tab.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] - 60)
    assert page.words("angleText") == "180°"
    page.tab.wait_for_timeout(400)
    page.tab.reload()
    page.wait_shown()
    assert page.words("angleText") == "180°"


@pytest.mark.browser
def test_start_stop_and_start_again(opens, gate):
    page = opens()
    gate.clear()
    try:
        page.tab.locator("[data-ref=step]").select_option("30")
        page.tab.locator("[data-ref=networks] input").nth(1).uncheck()
        page.tab.get_by_role("button", name="Start").click()
        page.wait("sreEvaluate.state === 'running'")
        assert page.tab.locator("[data-ref=start]").is_disabled()
        page.tab.reload()  # who comes back finds it running
        page.wait("window.sreEvaluate && sreEvaluate.state === 'running'")
        page.wait_shown()
        assert page.tab.locator("[data-ref=step]").input_value() == "30"
        boxes = page.tab.locator("[data-ref=networks] input").all()
        assert [box.is_checked() for box in boxes] == [True, False, True]
        page.tab.get_by_role("button", name="Stop").click()
    finally:
        gate.set()
    page.wait("sreEvaluate.state === 'stopped'")
    assert "Stopped. What was answered is kept" in page.words("notices")
    assert "A quick look" in page.words("subject")
    page.tab.get_by_role("button", name="Start").click()
    page.wait("sreEvaluate.state === 'done'")
    page.wait("document.querySelector('[data-ref=subject]').innerText.includes('All 40 test')")
    assert page.tab.locator("[data-ref=table] tbody tr").count() == 2
    for box in page.tab.locator("[data-ref=networks] input").all():
        box.uncheck()
    page.tab.get_by_role("button", name="Start").click()
    page.wait("document.querySelector('[data-ref=errors]').innerText.includes('takes 1 to 8')")


@pytest.mark.browser
def test_a_cell_lists_its_images_which_open_in_the_lab_and_back_leads_here(opens):
    page = opens("dataset=cells&angle=120")
    cell = page.tab.locator(".evaluate-cell").first
    cell.focus()
    page.tab.keyboard.press("ArrowRight")
    page.tab.keyboard.press("Enter")
    page.tab.locator(".evaluate-images").wait_for()
    full = page.tab.locator(".evaluate-cell:not(:text-is('·'))").first
    full.click()
    page.tab.locator(".evaluate-images .lab-thumb").first.wait_for()
    link = page.tab.locator(".evaluate-images .lab-thumb").first
    sample = link.inner_text()
    # The network of that cell takes its column there.
    assert "network=cells-" in link.get_attribute("href")
    link.scroll_into_view_if_needed()
    before = page.get("scrollY")
    assert before > 0
    link.click()
    page.tab.wait_for_function("() => window.sreLab && sreLab.isReady")
    assert page.get("sreLab.angle") == 120
    assert page.get("sreLab.bundle.dataset.name") == "cells"
    assert f"sample={sample}" in page.tab.url
    page.tab.go_back()
    page.wait_shown()
    assert page.words("angleText") == "120°"
    # Where one was: the same cell, its images, and the place on the page.
    page.tab.locator(".evaluate-images .lab-thumb", has_text=sample).first.wait_for()
    assert page.tab.locator(".evaluate-cell[aria-pressed=true]").count() == 1
    page.wait(f"Math.abs(scrollY - {before}) < 40")


@pytest.mark.browser
def test_more_images_than_one_sheet_come_when_asked_for(opens, monkeypatch):
    monkeypatch.setattr(study, "MOST_LISTED", 1)
    page = opens("dataset=digits")
    counts = [
        int(cell.inner_text().replace("·", "0"))
        for cell in page.tab.locator(".evaluate-cell").all()
    ]
    most = max(counts)
    page.tab.locator(".evaluate-cell").nth(counts.index(most)).click()
    links, more = (
        page.tab.locator(".evaluate-images .lab-thumb"),
        page.tab.get_by_text("More", exact=True),
    )
    for known in range(1, most):
        page.wait(f"document.querySelectorAll('.evaluate-images .lab-thumb').length === {known}")
        assert f"The first {known} of {most}." in page.words("images")
        more.focus()
        page.tab.keyboard.press("Enter")
    page.wait(f"document.querySelectorAll('.evaluate-images .lab-thumb').length === {most}")
    assert most > 1
    assert more.is_hidden()
    page.wait("document.activeElement.classList.contains('lab-thumb')")  # the focus went on
    assert len({link.inner_text() for link in links.all()}) == most


@pytest.mark.browser
def test_choices_have_a_place_in_the_history(opens):
    page = opens("dataset=digits&protocol=disc")
    page.tab.get_by_text("paper", exact=True).click()
    page.wait("sreEvaluate.result && location.search.includes('protocol=paper')")
    page.wait("document.querySelector('[data-ref=subject]').innerText.includes('protocol paper')")
    page.tab.go_back()
    page.wait("document.querySelector('[data-ref=subject]').innerText.includes('protocol disc')")
    page = opens("dataset=nonsense&protocol=mine&angle=x")
    for said in ("data set “nonsense”", "protocol “mine”", "angle “x”"):
        assert said in page.words("notices")


@pytest.mark.browser
def test_files_are_made_in_the_browser(opens):
    page, files = opens(), {}
    for kind in ("csv", "json", "png"):
        with page.tab.expect_download() as download:
            page.tab.locator(f"[data-save={kind}]").click()
        assert download.value.suggested_filename.endswith(f".{kind}")
        files[kind] = download.value.path().read_bytes()
    assert files["csv"].startswith(b"network,angle_deg,figure,value,low,high\n")
    assert json.loads(files["json"])["dataset"] == "digits"
    picture = Image.open(io.BytesIO(files["png"])).convert("RGB")
    assert picture.width > 1200
    assert len(np.unique(np.array(picture).reshape(-1, 3), axis=0)) > 20  # something is drawn


@pytest.mark.browser
@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1280, "light")])
def test_no_serious_axe_violation_and_no_scrolling_sideways(opens, width, scheme):
    page = opens(width=width, color_scheme=scheme)
    found = Axe().run(page.tab).response["violations"]
    assert [v["id"] for v in found if v["impact"] in {"serious", "critical"}] == []
    assert page.get("document.documentElement.scrollWidth") <= width


# Requests


@pytest.mark.parametrize(
    ("name", "request_", "said"),
    [
        ("get_result", {"dataset": "nonsense", "protocol": "disc"}, "nonsense"),
        ("get_result", None, "lacks dataset"),
        ("start_evaluation", {"dataset": "digits"}, "lacks checkpoints"),
        ("look_quickly", {"dataset": "digits", "protocol": "mine"}, "mine"),
        ("stop_evaluation", {}, "lacks id"),
        ("get_cell", [], "lacks result"),
        ("get_pictures", {"dataset": "digits", "indices": "all"}, "indices must be a list"),
    ],
)
def test_bad_request_gets_a_sentence(late_lab, name, request_, said):
    functions = {f.__name__: f for f in evaluate.server_functions(LateEvaluations(late_lab))}
    reply = functions[name](request_)
    assert list(reply) == ["error"]
    assert said in reply["error"]
