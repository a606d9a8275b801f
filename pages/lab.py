"""The Lab: one image, turned; three networks, side by side.

The page is one custom component. Its picture of 72 angles is fetched once (a bundle) and then
painted in the browser, because a round trip per tick cannot keep up with a hand on the slider.
"""

import html
from collections.abc import Callable
from typing import Any

import gradio as gr
from gradio.data_classes import DataWithFiles

from pages.component import Reply, component, fields, replying
from sre.errors import SettingError, SREError

# Later files use earlier ones.
SCRIPTS = (
    "shared/dom.js",
    "shared/talk.js",
    "shared/colour.js",
    "shared/plot.js",
    "shared/sheets.js",
    "shared/download.js",
    "lab/bundle.js",
    "lab/turn.js",
    "lab/address.js",
    "lab/charts.js",
    "lab/board.js",
    "lab/dial.js",
    "lab/datasets.js",
    "lab/gallery.js",
    "lab/words.js",
    "lab/main.js",
)
UPLOAD_LIMIT = "20mb"  # also in main.js, where a larger file is refused before it is sent


def build(lab: Callable[[], Any]) -> None:
    """Add the page to the Blocks context that is open.

    Args: lab: gives the `sre.studies.lab.Lab`; called when a visitor first asks for something
    """
    component("lab", SCRIPTS, server_functions(lab))
    gr.api(orbit_endpoint(lab), api_name="orbit", concurrency_limit=2)


def server_functions(lab: Callable[[], Any]) -> list[Callable[[Any], Reply]]:
    """The functions that the page's JavaScript may call, each with one request."""

    @replying
    def get_catalogue(request: Reply) -> Reply:
        return lab().catalogue()

    @replying
    def get_gallery(request: Reply) -> Reply:
        return lab().gallery(*fields(request, "dataset", "label", "offset", "limit"))

    @replying
    def get_orbit(request: Reply) -> Reply:
        names = ("dataset", "sample", "upload", "protocol", "target", "ticket", "session")
        return lab().packed_orbit(*fields(request, *names), request.get("networks"))

    @replying
    def find_sample(request: Reply) -> Reply:
        given = fields(request, "dataset", "kind", "after", "protocol")
        return lab().find(*given, request.get("networks"))

    @replying
    def take_upload(request: DataWithFiles) -> Reply:
        if not isinstance(request, DataWithFiles) or not request.files:
            raise SettingError("the upload holds no file; choose one")
        name, data = request.files[0]
        return lab().upload(data, name, *fields(request.data, "dataset"))

    @replying
    def start_download(request: Reply) -> Reply:
        return lab().download(*fields(request, "dataset"))

    @replying
    def get_download(request: Reply) -> Reply:
        return lab().download_progress(*fields(request, "dataset"))

    return [
        get_catalogue,
        get_gallery,
        get_orbit,
        find_sample,
        take_upload,
        start_download,
        get_download,
    ]


def orbit_endpoint(lab: Callable[[], Any]) -> Callable[..., Reply]:
    """The named endpoint for gradio_client; its docstring is what the API page shows."""

    def orbit(dataset: str, sample: int, protocol: str = "disc", target: int | None = None) -> dict:
        """Turn a test image through 72 angles and ask every network of its data set.

        Args:
            dataset: a name from the page's list, such as "bloodmnist" or "cells"
            sample: index in the test split, from 0
            protocol: "disc" (bilinear, masked) or "paper" (the authors' released evaluation)
            target: index of the class that Grad-CAM explains; None: the predicted one at 0 degrees

        Returns: probabilities, predictions, errors and maps (as picture sheets) at each angle
        """
        try:
            return lab().orbit(dataset, sample, None, protocol, target, 0, "")
        except SREError as error:
            raise gr.Error(html.escape(str(error)), print_exception=False) from error

    return orbit
