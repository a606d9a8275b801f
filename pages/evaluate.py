"""Evaluate: networks on a whole test set, at every angle, with intervals and paired tests."""

from collections.abc import Callable
from typing import Any

from pages.component import Reply, component, fields, replying

# Later files use earlier ones.
SCRIPTS = (
    "shared/dom.js",
    "shared/talk.js",
    "shared/colour.js",
    "shared/plot.js",
    "shared/sheets.js",
    "evaluate/figures.js",
    "evaluate/plots.js",
    "evaluate/matrix.js",
    "evaluate/save.js",
    "evaluate/main.js",
)


def build(evaluations: Callable[[], Any]) -> None:
    """Add the page to the Blocks context that is open.

    Args: evaluations: gives the `sre.studies.evaluations.Evaluations`; called when a visitor
        first asks for something
    """
    component("evaluate", SCRIPTS, server_functions(evaluations))


def server_functions(evaluations: Callable[[], Any]) -> list[Callable[[Any], Reply]]:
    """The functions that the page's JavaScript may call, each with one request."""

    @replying
    def get_choices(request: Reply) -> Reply:
        return evaluations().catalogue()

    @replying
    def get_result(request: Reply) -> Reply:
        return evaluations().result(*fields(request, "dataset", "protocol"))

    @replying
    def start_evaluation(request: Reply) -> Reply:
        names = ("dataset", "checkpoints", "protocol", "step_deg", "average", "placings")
        return evaluations().start(*fields(request, *names))

    @replying
    def look_quickly(request: Reply) -> Reply:
        return evaluations().look(*fields(request, "dataset", "protocol"))

    @replying
    def get_progress(request: Reply) -> Reply:
        return evaluations().progress()

    @replying
    def stop_evaluation(request: Reply) -> Reply:
        return evaluations().stop(*fields(request, "id"))

    @replying
    def get_cell(request: Reply) -> Reply:
        names = ("result", "model", "angle", "kind", "row", "column")
        return evaluations().cell(*fields(request, *names), request.get("since", 0))

    @replying
    def get_pictures(request: Reply) -> Reply:
        return evaluations().pictures(*fields(request, "dataset", "indices"))

    return [
        get_choices,
        get_result,
        start_evaluation,
        look_quickly,
        get_progress,
        stop_evaluation,
        get_cell,
        get_pictures,
    ]
