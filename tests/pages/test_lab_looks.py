"""The Lab's looks: dark, narrow, without a mouse, and for those who hear it."""

import re

import pytest
from axe_playwright_python.sync_playwright import Axe

pytestmark = pytest.mark.browser

AXE = Axe()


def serious(page) -> list[str]:
    found = AXE.run(page.tab).response["violations"]
    return [
        f"{v['id']}: {node['html'][:160]}"
        for v in found
        if v["impact"] in {"serious", "critical"}
        for node in v["nodes"]
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_no_serious_axe_violation(new_page, scheme, width):
    page = new_page(width=width, color_scheme=scheme).open("angle=45&dataset=nonsense")
    assert serious(page) == []


@pytest.mark.parametrize("panel", ["Data set", "All samples"])
def test_no_serious_axe_violation_in_panels(new_page, panel):
    page = new_page().open()
    page.tab.get_by_role("button", name=panel).click()
    page.tab.wait_for_timeout(600)
    assert serious(page) == []


def test_dark_is_dark(new_page):
    page = new_page(color_scheme="dark").open()

    def brightness(selector: str, name: str) -> int:
        style = page.get(f"getComputedStyle(document.querySelector('{selector}')).{name}")
        return sum(int(part) for part in re.findall(r"\d+", style)[:3])

    assert brightness("body", "backgroundColor") < 120
    assert brightness(".lab-headline", "color") > 600


@pytest.mark.parametrize(
    ("width", "dataset"),
    [(320, "cells"), (390, "cells"), (390, "digits"), (700, "cells"), (1920, "cells")],
)
def test_no_sideways_scroll(new_page, width, dataset):
    page = new_page(width=width).open(f"dataset={dataset}")
    page.tab.get_by_role("button", name="Data set").click()
    assert page.get("document.documentElement.scrollWidth") <= width


def test_slider_and_image_stay_in_view_on_a_phone(new_page):
    page = new_page(width=390, height=844).open()
    page.tab.locator("[data-ref=camRow]").scroll_into_view_if_needed()
    for ref in ("slider", "dialImage"):
        box = page.tab.locator(f"[data-ref={ref}]").bounding_box()
        assert 0 <= box["y"] < 844


def test_three_networks_stay_side_by_side_on_a_phone(new_page):
    page = new_page(width=390).open()
    boxes = [
        node.bounding_box() for node in page.tab.locator("[data-ref=featureRow] .lab-map").all()
    ]
    assert len({round(box["y"]) for box in boxes}) == 1


def test_everything_can_be_reached_with_the_tab_key(new_page):
    page = new_page().open()
    reached = set()
    for _ in range(60):
        page.tab.keyboard.press("Tab")
        reached.add(
            page.get("""(({ dataset, name, tagName }) =>
            dataset.ref || dataset.find || dataset.snap || name || tagName
            )(document.activeElement)""")
        )
    assert {
        "datasetButton", "galleryButton", "random", "cnn_wrong_turned", "sre_wrong", "uploadButton",
        "lab-protocol", "slider", "play", "90", "lab-stage", "lab-channel", "lab-maps", "target",
        "SUMMARY",
    } <= reached  # fmt: skip


def test_focus_can_be_seen(new_page):
    page = new_page().open()
    for selector in ("#lab-angle", "[data-ref=datasetButton]", "[data-ref=target]"):
        page.tab.locator(selector).focus()
        page.tab.keyboard.press("Shift+Tab")
        page.tab.keyboard.press("Tab")
        style = page.get("getComputedStyle(document.activeElement).outlineStyle")
        assert style == "solid", selector


def test_pictures_have_names(page):
    unnamed = page.get("""[...document.querySelectorAll(".lab canvas, .lab svg")].filter((node) =>
        !node.closest("[aria-hidden=true]") && !(node.getAttribute("role") === "img"
          && node.getAttribute("aria-label"))).map((node) => node.outerHTML.slice(0, 120))""")
    assert unnamed == []


def test_headline_is_announced_and_ticks_are_not(page):
    assert page.tab.locator("[data-ref=headline]").get_attribute("aria-live") == "polite"
    announced = """(() => {
        const live = "[aria-live]:not([aria-live=off]), [role=status], [role=alert]";
        return [...document.querySelectorAll(live)].map((node) => node.textContent).join();
    })()"""
    assert page.tab.locator("output").get_attribute("aria-live") == "off"
    before = page.get(announced)
    page.tab.locator("#lab-angle").focus()
    page.tab.keyboard.press("PageUp")
    assert page.get(announced) == before
