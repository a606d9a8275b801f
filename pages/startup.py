"""Importing Gradio in half the time."""

import importlib
import inspect
from types import ModuleType


def import_gradio() -> ModuleType:
    """Import Gradio without its stub files for editors.

    For each of its components Gradio parses its own source at import, to write a .pyi file next to
    it: 1.2 to 2.5 of 2.4 to 4.7 s on two cores, and nothing that an app needs. It skips components
    that have no source file, so while it is imported, its components have none.
    """
    getfile = inspect.getfile

    def getfile_but_not_of_components(thing: object) -> str:
        if isinstance(thing, type) and thing.__module__.split(".")[0] == "gradio":
            raise OSError(f"{thing.__qualname__} needs no stub file")
        return getfile(thing)

    inspect.getfile = getfile_but_not_of_components
    try:
        return importlib.import_module("gradio")
    finally:
        inspect.getfile = getfile
