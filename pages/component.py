"""What pages are made of: one custom component each, its files, and its talk with the server."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from sre.errors import Dropped, SettingError, SREError

ASSETS = Path(__file__).parent.parent / "assets"
STYLES = ("shared/base.css", "lab/lab.css", "train/train.css", "evaluate/evaluate.css")
Reply = dict[str, Any]


def asset(name: str) -> str:
    """Read a text file of assets/."""
    return (ASSETS / name).read_text(encoding="utf-8")


def join_scripts(names: Sequence[str]) -> str:
    """Join JavaScript files into one function body, which is what ``js_on_load`` takes.

    Modules would need a served folder, and so a path that Gradio must hand out.
    """
    return "\n".join(asset(name) for name in names)


def head() -> str:
    """All pages' styles, for the head: ``css=`` would scope every rule and break :is(a, b)."""
    return f"<style>\n{join_scripts(STYLES)}</style>"


def component(
    name: str, scripts: Sequence[str], functions: Sequence[Callable[[Any], Reply]]
) -> None:
    """Add a page's component to the Blocks context that is open.

    Args: name: its folder in assets/, its template there and its id in the page; scripts: its
        JavaScript files, later ones using earlier ones; functions: what the scripts may call
    """
    gr.HTML(
        html_template=asset(f"{name}/{name}.html"),
        js_on_load=join_scripts(scripts),
        apply_default_css=False,
        elem_id=name,
        server_functions=list(functions),
    )


def fields(request: Any, *names: str) -> list[Any]:
    """Values of a request, in order: anyone may send one, so that nothing is taken for granted.

    Raises: SettingError: it lacks one, or is no object at all
    """
    missing = [n for n in names if n not in request] if isinstance(request, dict) else list(names)
    if missing:
        raise SettingError(f"the request lacks {', '.join(missing)}; reload the page")
    return [request[name] for name in names]


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
