"""The app as the browser meets it: on the built-in sets, with small networks that know nothing.

What the page does does not depend on what the networks know; so the tests need no download and no
shipped checkpoint.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from playwright.sync_api import Browser, Page, Request, sync_playwright

from pages import component, lab, theme
from pages.backend import LateLab, LateTrainer
from pages.site import build_site
from sre.checkpoints import CheckpointCard, save_checkpoint
from sre.data.table import find_dataset
from sre.models import build_model
from tests.browser import find_browser

# What the browser itself would ask the net for is none of the page's doing.
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
)  # fmt: skip
KERNELS = (9, 9, 5, 5)
WAIT_MS = 90_000  # a busy machine must not fail a test


@pytest.fixture(scope="session")
def late_lab(tmp_path_factory: pytest.TempPathFactory) -> LateLab:
    """A Lab with untrained networks for the two built-in sets, and no MedMNIST on disk."""
    folder = tmp_path_factory.mktemp("lab")
    for name in ("checkpoints", "data", "cache"):
        (folder / name).mkdir()
    for dataset in ("cells", "digits"):
        for model, rotates in (("sre_resnet18", False), ("resnet18", False), ("resnet18", True)):
            save_untrained(folder / "checkpoints", dataset, model, rotates)
    return LateLab(
        data_dir=folder / "data",
        cache_dir=folder / "cache",
        checkpoints_dir=folder / "checkpoints",
        device="cpu",
    )


def save_untrained(folder: Path, dataset: str, model: str, rotates: bool) -> None:
    entry = find_dataset(dataset)
    torch.manual_seed(1 + rotates)
    network = build_model(
        model,
        in_channels=entry.channels,
        num_classes=len(entry.classes),
        width=8,
        kernel_sizes=KERNELS,
    )
    card = CheckpointCard(
        dataset=dataset,
        classes=entry.classes,
        is_multi_label=False,
        in_channels=entry.channels,
        side_px=28,
        model=model,
        width=8,
        kernel_sizes=KERNELS,
        rotates_in_training=rotates,
        protocol="disc",
        parameters=sum(p.numel() for p in network.parameters()),
        multiply_adds=1_000_000,
        config={},
        command="untrained, for tests",
        test={"accuracy_at_0": 0.5, "accuracy_mean": 0.4, "accuracy_worst": 0.3},
    )
    save_checkpoint(network.eval(), card, folder / card.file_name)


@pytest.fixture(scope="session")
def late_trainer(late_lab: LateLab, tmp_path_factory: pytest.TempPathFactory) -> LateTrainer:
    """What trains, on the Lab's data."""
    cache_dir = tmp_path_factory.mktemp("trainer")
    return LateTrainer(data_dir=late_lab().data_dir, cache_dir=cache_dir, device="cpu")


@pytest.fixture(scope="session")
def server(late_lab: LateLab, late_trainer: LateTrainer) -> Iterator[str]:
    """The address of the running page."""
    demo = build_site(late_lab, trainer=late_trainer)
    _, address, _ = demo.launch(
        prevent_thread_lock=True,
        quiet=True,
        ssr_mode=False,
        run_history=False,
        theme=theme.make_theme(),
        head=component.head(),
        max_file_size=lab.UPLOAD_LIMIT,
    )
    yield address
    demo.close()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    path = find_browser()
    if path is None:
        pytest.skip("needs Chromium; make browser brings one")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield chromium
        chromium.close()


@dataclass
class LabPage:
    """The page in one tab, and what went over the wire."""

    tab: Page
    address: str
    requests: list[Request] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)  # of the page's own scripts

    def open(self, query: str = "") -> "LabPage":
        self.tab.goto(f"{self.address}?{query}")
        return self.wait_ready()

    def wait_ready(self) -> "LabPage":
        self.wait("sreLab.isReady && sreLab.shownTicket === sreLab.ticket")
        return self

    def wait(self, condition: str) -> None:
        self.tab.wait_for_function(f"() => window.sreLab && {condition}", timeout=WAIT_MS)

    def get(self, expression: str):
        return self.tab.evaluate(f"() => {expression}")

    @property
    def angle(self) -> int:
        return self.get("sreLab.angle")

    def query(self) -> dict[str, str]:
        """What the address says, once it has settled."""
        self.tab.wait_for_timeout(400)
        return self.get("Object.fromEntries(new URLSearchParams(location.search))")

    def asked(self) -> list[str]:
        """The requests to the server since the last call of this."""
        found = [f"{r.method} {r.url}" for r in self.requests if r.url.startswith("http")]
        self.requests.clear()
        return found

    def words(self, ref: str) -> str:
        return self.tab.locator(f"[data-ref={ref}]").inner_text()


@pytest.fixture
def new_page(browser: Browser, server: str) -> Iterator:
    """Make a page: new_page(width=390, color_scheme="dark")."""
    contexts = []

    def make(*, width: int = 1280, height: int = 900, **settings: str) -> LabPage:
        context = browser.new_context(viewport={"width": width, "height": height}, **settings)
        contexts.append(context)
        page = LabPage(context.new_page(), server)
        page.tab.set_default_timeout(WAIT_MS)
        page.tab.on("request", lambda request: page.requests.append(request))
        page.tab.on("pageerror", lambda error: page.problems.append(str(error)))
        return page

    yield make
    for context in contexts:
        context.close()


@pytest.fixture
def page(new_page) -> Iterator[LabPage]:
    """The page on its first sample, at 0 degrees; none of its scripts may fail."""
    opened = new_page().open()
    opened.asked()
    yield opened
    assert opened.problems == []
