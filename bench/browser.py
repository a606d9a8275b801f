"""The page's own speed, in Chromium: click to paint of a cached orbit, and positions a second."""

import tempfile
import time
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from bench.harness import spread
from bench.start import running_app
from tests.browser import find_browser

VIEWPORT = {"width": 1280, "height": 900}
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
         "--disable-background-networking", "--disable-component-update")  # fmt: skip
SAMPLES = range(1, 10)
DRAG_S = 3.0
WAIT_MS = 120_000


def measure_page() -> dict[str, object]:
    """Time the page on the built-in cells, with the shipped networks, as after a fresh clone."""
    path = find_browser()
    if path is None:
        raise SystemExit("no Chromium is here; run make browser first")
    with (
        tempfile.TemporaryDirectory() as folder,
        running_app(Path(folder)) as app,
        sync_playwright() as playwright,
    ):
        chromium = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        uncached = visit(chromium.new_page(viewport=VIEWPORT), app.address)
        tab = chromium.new_page(viewport=VIEWPORT)
        cached = visit(tab, app.address)
        drag = drag_slider(tab)
        chromium.close()
    return {
        "click_to_paint_uncached_ms": spread(uncached),
        "click_to_paint_cached_ms": spread(cached),
        **drag,
    }


def visit(tab: Page, address: str) -> list[float]:
    """Open the gallery's samples one after the other; ms from each click to its first paint."""
    tab.goto(f"{address}?dataset=cells&sample=0")
    tab.wait_for_function("window.sreLab && window.sreLab.isReady", timeout=WAIT_MS)
    tab.locator("[data-ref=galleryButton]").click()
    tab.locator(".lab-thumb").nth(max(SAMPLES)).wait_for(timeout=WAIT_MS)
    return [
        tab.evaluate(
            """index => new Promise(resolve => {
                const thumb = document.querySelectorAll(".lab-thumb")[index];
                const began = performance.now();
                thumb.click();
                const look = () => window.sreLab.bundle.sample.index === index
                    ? requestAnimationFrame(() => resolve(performance.now() - began))
                    : setTimeout(look, 1);
                look();
            })""",
            index,
        )
        for index in SAMPLES
    ]


def drag_slider(tab: Page) -> dict[str, object]:
    """Drag the slider back and forth; count paints and requests."""
    tab.wait_for_timeout(2000)  # all stages are decoded by then
    tab.locator(
        "[data-ref=galleryButton]"
    ).click()  # closes the panel, which pushes the slider down
    slider = tab.locator("[data-ref=slider]")
    slider.scroll_into_view_if_needed()
    tab.wait_for_timeout(300)
    box = slider.bounding_box()
    requests = []
    tab.on("request", lambda request: requests.append(request.url))
    before = tab.evaluate("window.sreLab.paints")
    y = box["y"] + box["height"] / 2
    tab.mouse.move(box["x"] + 8, y)
    tab.mouse.down()
    began, place, step = time.perf_counter(), 0.0, 1 / 71
    while time.perf_counter() - began < DRAG_S:
        place += step
        if not 0 <= place <= 1:
            step, place = -step, min(1.0, max(0.0, place))
        tab.mouse.move(box["x"] + 8 + place * (box["width"] - 16), y)
    took = time.perf_counter() - began
    tab.mouse.up()
    paints = tab.evaluate("window.sreLab.paints") - before
    # The mouse is driven from outside, a round trip a move; the page alone can do more.
    alone = tab.evaluate(
        """() => {
            const slider = document.querySelector("[data-ref=slider]");
            const from = window.sreLab.paints, began = performance.now();
            for (let i = 0; i < 360; i += 1) {
                slider.value = String((i % 72) * 5);
                slider.dispatchEvent(new Event("input", { bubbles: true }));
            }
            return (window.sreLab.paints - from) / (performance.now() - began) * 1000;
        }"""
    )
    return {
        "drag_painted_per_s": round(paints / took, 1),
        "drag_requests": len(requests),
        "paints_per_s_without_the_mouse": round(alone, 1),
    }
