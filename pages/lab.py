"""The Lab: one image, turned; three networks, side by side.

The page is one custom component. Its picture of 72 angles is fetched once (a bundle) and then
painted in the browser, because a round trip per tick cannot keep up with a hand on the slider.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import gradio as gr
from gradio.data_classes import DataWithFiles

from sre.errors import Dropped, SREError

ASSETS = Path(__file__).parent.parent / "assets" / "lab"
# Joined in this order into one function body, which is what `js_on_load` takes: modules would need
# a served folder, and so a path that Gradio must be allowed to hand out. Later files use earlier ones.
SCRIPTS = (
    "dom.js",
    "talk.js",
    "colour.js",
    "sheets.js",
    "turn.js",
    "address.js",
    "charts.js",
    "board.js",
    "dial.js",
    "datasets.js",
    "gallery.js",
    "words.js",
    "main.js",
)
UPLOAD_LIMIT = "20mb"  # also in main.js, where a larger file is refused before it is sent
Reply = dict[str, Any]


class Answers(Protocol):
    """What the page asks for; `pages.backend.Backend` answers it."""

    def catalogue(self) -> Reply: ...
    def gallery(self, dataset: str, label: int | None, offset: int, limit: int) -> Reply: ...
    def find(self, dataset: str, kind: str, after: int | None, protocol: str) -> Reply: ...
    def upload(self, data: bytes, name: str, dataset: str) -> Reply: ...
    def download(self, dataset: str) -> Reply: ...
    def download_progress(self, dataset: str) -> Reply: ...
    def orbit(
        self,
        dataset: str,
        sample: int | None,
        upload: str | None,
        protocol: str,
        target: int | None,
        ticket: int,
        session: str,
    ) -> Reply: ...


def script() -> str:
    """The page's JavaScript, as one function body."""
    return "\n".join((ASSETS / name).read_text(encoding="utf-8") for name in SCRIPTS)


def head() -> str:
    """The page's style sheet, for the head: `css=` would scope every rule and break `:is(a, b)`."""
    return f"<style>\n{(ASSETS / 'lab.css').read_text(encoding='utf-8')}</style>"


def build(answers: Answers) -> None:
    """Add the page to the Blocks context that is open."""
    gr.HTML(
        html_template=(ASSETS / "lab.html").read_text(encoding="utf-8"),
        js_on_load=script(),
        apply_default_css=False,
        elem_id="lab",
        server_functions=server_functions(answers),
    )
    gr.api(orbit_endpoint(answers), api_name="orbit", concurrency_limit=2)


def server_functions(answers: Answers) -> list[Callable[[Any], Reply]]:
    """The functions that the page's JavaScript may call, each with one request."""

    @replying
    def get_catalogue(request: Any) -> Reply:
        return answers.catalogue()

    @replying
    def get_gallery(request: Reply) -> Reply:
        return answers.gallery(
            request["dataset"], request["label"], request["offset"], request["limit"]
        )

    @replying
    def get_orbit(request: Reply) -> Reply:
        return answers.orbit(**request)

    @replying
    def find_sample(request: Reply) -> Reply:
        return answers.find(
            request["dataset"], request["kind"], request["after"], request["protocol"]
        )

    @replying
    def take_upload(request: DataWithFiles) -> Reply:
        name, data = request.files[0]
        return answers.upload(data, name, request.data["dataset"])

    @replying
    def start_download(request: Reply) -> Reply:
        return answers.download(request["dataset"])

    @replying
    def get_download(request: Reply) -> Reply:
        return answers.download_progress(request["dataset"])

    return [
        get_catalogue,
        get_gallery,
        get_orbit,
        find_sample,
        take_upload,
        start_download,
        get_download,
    ]


def replying(function: Callable[[Any], Reply]) -> Callable[[Any], Reply]:
    """Turn what a visitor can cause into a reply that the page can show."""

    @functools.wraps(function)
    def reply(request: Any) -> Reply:
        try:
            return function(request)
        except Dropped:
            return {"dropped": True}
        except SREError as error:
            return {"error": str(error)}

    return reply


def orbit_endpoint(answers: Answers) -> Callable[..., Reply]:
    def orbit(dataset: str, sample: int, protocol: str = "disc", target: int | None = None) -> dict:
        """Turn a test sample through 72 angles and ask every network of its data set.

        Args:
            dataset: a name from the page's data set list, such as "bloodmnist" or "cells"
            sample: index in the test split
            protocol: "disc" (bilinear, masked) or "paper" (the authors' released evaluation)
            target: index of the class that Grad-CAM explains; left out: the predicted one at 0

        Returns: the bundle: probabilities, predictions, maps (as WebP sheets) and errors at each angle
        """
        try:
            return answers.orbit(dataset, sample, None, protocol, target, 0, "")
        except SREError as error:
            raise gr.Error(str(error), print_exception=False) from error

    return orbit
