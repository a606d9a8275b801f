"""Train: choose a network and a data set, start a run, watch it, come back to it.

The page asks about once a second what has happened since it asked last, and draws the curves in
the browser; the run itself is a process that knows nothing of the page.
"""

from collections.abc import Callable
from typing import Any

from pages import lab as lab_page
from pages.component import Reply, component, fields, replying

# Later files use earlier ones.
SCRIPTS = (
    "shared/dom.js",
    "shared/talk.js",
    "shared/plot.js",
    "shared/download.js",
    "train/form.js",
    "train/curves.js",
    "train/run.js",
    "train/main.js",
)
FROM_LAB = ("get_catalogue", "start_download", "get_download")


def build(trainer: Callable[[], Any], lab: Callable[[], Any]) -> None:
    """Add the page to the Blocks context that is open.

    Args: trainer: gives the `sre.studies.trainer.Trainer`; lab: the Lab, for the data sets
    """
    component("train", SCRIPTS, server_functions(trainer, lab))


def server_functions(
    trainer: Callable[[], Any], lab: Callable[[], Any]
) -> list[Callable[[Any], Reply]]:
    """The functions that the page's JavaScript may call, each with one request."""

    @replying
    def get_form(request: Reply) -> Reply:
        return trainer().form()

    @replying
    def describe(request: Reply) -> Reply:
        return trainer().describe(*fields(request, "settings"))

    @replying
    def estimate(request: Reply) -> Reply:
        return trainer().estimate(*fields(request, "settings", "ticket", "session"))

    @replying
    def start(request: Reply) -> Reply:
        return trainer().start(*fields(request, "settings"))

    @replying
    def follow(request: Reply) -> Reply:
        return trainer().follow(*fields(request, "job", "since"))

    @replying
    def stop(request: Reply) -> Reply:
        return trainer().stop(*fields(request, "job"))

    @replying
    def resume(request: Reply) -> Reply:
        return trainer().resume(*fields(request, "job"))

    @replying
    def remove(request: Reply) -> Reply:
        return trainer().remove(*fields(request, "job"))

    shared = [f for f in lab_page.server_functions(lab) if f.__name__ in FROM_LAB]
    return [get_form, describe, estimate, start, follow, stop, resume, remove, *shared]
