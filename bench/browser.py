"""The page's own speed, in Chromium: click to paint of a cached orbit, and positions a second."""

import asyncio
import tempfile
import time
from collections.abc import Awaitable
from pathlib import Path

from playwright.async_api import Page, async_playwright

from bench.harness import spread
from bench.start import running_app
from tests.browser import find_browser

VIEWPORT = {"width": 1280, "height": 900}
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
         "--disable-background-networking", "--disable-component-update")  # fmt: skip
SAMPLES = range(1, 12)
REST_MS = 2000  # before each click: the page decodes the other stages, and then does nothing
DRAG_S = 3.0
MOVES_PER_S = 125  # of an ordinary mouse
WAIT_MS = 120_000


def measure_page() -> dict[str, object]:
    """Time the page on the built-in cells, with the shipped networks, as after a fresh clone."""
    path = find_browser()
    if path is None:
        raise SystemExit("no Chromium is here; run make browser first")
    with tempfile.TemporaryDirectory() as folder, running_app(Path(folder)) as app:
        return asyncio.run(_measure(path, app.address))


async def _measure(browser: str, address: str) -> dict[str, object]:
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(executable_path=browser, args=list(FLAGS))
        first = await chromium.new_page(viewport=VIEWPORT)
        uncached = await visit(first, address)
        await first.close()
        tab = await chromium.new_page(viewport=VIEWPORT)
        cached = await visit(tab, address)
        drag = await drag_slider(tab)
        await chromium.close()
    return {
        "click_to_paint_uncached_ms": spread(uncached),
        "click_to_paint_cached_ms": spread(cached),
        **drag,
    }


async def visit(tab: Page, address: str) -> list[float]:
    """Open the gallery's samples one after the other; ms from each click until it is painted."""
    await tab.goto(f"{address}?dataset=cells&sample=0")
    await tab.wait_for_function("window.sreLab && window.sreLab.isReady", timeout=WAIT_MS)
    await tab.locator("[data-ref=galleryButton]").click()
    await tab.locator(".lab-thumb").nth(max(SAMPLES)).wait_for(timeout=WAIT_MS)
    found = []
    for index in SAMPLES:
        await tab.wait_for_timeout(REST_MS)
        found.append(
            await tab.evaluate(
                """index => new Promise(resolve => {
                    const thumb = document.querySelectorAll(".lab-thumb")[index];
                    const began = performance.now();
                    thumb.click();
                    const look = () => {
                        const { bundle, paintedAt } = window.sreLab;
                        const isThere = bundle.sample.index === index && paintedAt > began;
                        if (isThere) resolve(paintedAt - began);
                        else setTimeout(look, 5);
                    };
                    look();
                })""",
                index,
            )
        )
    return found


async def drag_slider(tab: Page) -> dict[str, object]:
    """Drag the slider back and forth; count requests, and frames that show another position.

    The mouse moves as one on a desk does, without waiting for the page to catch up.
    """
    await tab.locator("[data-ref=galleryButton]").click()  # closes the panel above the slider
    slider = tab.locator("[data-ref=slider]")
    await slider.scroll_into_view_if_needed()
    await tab.wait_for_timeout(REST_MS)
    box = await slider.bounding_box()
    left, width, y = box["x"] + 8, box["width"] - 16, box["y"] + box["height"] / 2
    requests: list[str] = []
    tab.on("request", lambda request: requests.append(request.url))
    await tab.evaluate(
        """() => {
            window.frames_ = 0;
            let before = window.sreLab.paints;
            const look = () => {
                if (window.sreLab.paints !== before) window.frames_ += 1;
                before = window.sreLab.paints;
                requestAnimationFrame(look);
            };
            requestAnimationFrame(look);
        }"""
    )
    session = await tab.context.new_cdp_session(tab)

    def mouse(kind: str, x: float) -> Awaitable[object]:
        where = {"x": x, "y": y, "button": "left", "buttons": 1, "clickCount": 1}
        return session.send("Input.dispatchMouseEvent", {"type": kind, **where})

    await mouse("mousePressed", left)
    moves, began, place, step = [], time.perf_counter(), 0.0, 1 / 71
    while time.perf_counter() - began < DRAG_S:
        place += step
        if not 0 <= place <= 1:
            step, place = -step, min(1.0, max(0.0, place))
        moves.append(asyncio.ensure_future(mouse("mouseMoved", left + place * width)))
        await asyncio.sleep(1 / MOVES_PER_S)
    frames = await tab.evaluate("window.frames_")
    took = time.perf_counter() - began
    await asyncio.gather(*moves)
    await mouse("mouseReleased", left)
    return {"drag_painted_per_s": round(frames / took, 1), "drag_requests": len(requests)}
