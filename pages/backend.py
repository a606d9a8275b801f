"""The studies, imported when they are first needed: they bring PyTorch, which takes seconds."""

import contextlib
import importlib
import threading
from pathlib import Path
from typing import Any

from sre.errors import SREError


class LateLab:
    """Calling it gives the one Lab; the first call imports and makes it."""

    def __init__(self, *, data_dir: Path, cache_dir: Path, checkpoints_dir: Path, device: str):
        self._settings = {
            "data_dir": data_dir,
            "cache_dir": cache_dir,
            "checkpoints_dir": checkpoints_dir,
            "device": device,
        }
        self._lock = threading.Lock()
        self._lab: Any = None

    def __call__(self) -> Any:
        with self._lock:
            if self._lab is None:
                self._lab = importlib.import_module("sre.studies.lab").Lab(**self._settings)
        return self._lab

    def warm_up(self) -> None:
        """Compute what the page opens on, so that its first visitor waits less."""
        lab = self()
        # What is wrong, such as a damaged file, the page will say.
        with contextlib.suppress(SREError):
            start = lab.catalogue()["start"]
            lab.orbit(start["dataset"], start["sample"], None, "disc", None, 0, "")
