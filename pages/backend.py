"""The studies, imported when they are first needed: they bring PyTorch, which takes seconds."""

import contextlib
import importlib
import threading
from pathlib import Path
from typing import Any

from sre.errors import SREError


class Late:
    """Calling it gives the one object of a class; the first call imports and makes it."""

    def __init__(self, module: str, name: str, **settings: Any):
        self._module, self._name, self._settings = module, name, settings
        self._lock = threading.Lock()
        self._made: Any = None

    @property
    def settings(self) -> dict[str, Any]:
        """Folders and device, which other studies share."""
        return self._settings

    def __call__(self) -> Any:
        with self._lock:
            if self._made is None:
                kind = getattr(importlib.import_module(self._module), self._name)
                self._made = self._prepare(kind(**self._settings))
        return self._made

    def _prepare(self, made: Any) -> Any:
        """Do with the object what must be done before anyone has it."""
        return made


class LateLab(Late):
    """Gives the Lab."""

    def __init__(self, *, data_dir: Path, cache_dir: Path, checkpoints_dir: Path, device: str):
        super().__init__(
            "sre.studies.lab",
            "Lab",
            data_dir=data_dir,
            cache_dir=cache_dir,
            checkpoints_dir=checkpoints_dir,
            device=device,
        )

    def _prepare(self, made: Any) -> Any:
        # Before the first visitor has it, who would else begin with the first image: it seldom
        # shows anything. What is wrong, such as a damaged file, the page will say.
        with contextlib.suppress(SREError):
            made.choose_opening()
        return made

    def warm_up(self) -> None:
        """Compute what the page opens on, so that its first visitor waits less."""
        lab = self()
        with contextlib.suppress(SREError):
            start = lab.catalogue()["start"]
            lab.orbit(start["dataset"], start["sample"], None, "disc", None, 0, "")


class LateTrainer(Late):
    """Gives what stands behind the Train page."""

    def __init__(self, *, data_dir: Path, cache_dir: Path, device: str, is_allowed: bool = True):
        super().__init__(
            "sre.studies.trainer",
            "Trainer",
            data_dir=data_dir,
            cache_dir=cache_dir,
            device=device,
            is_allowed=is_allowed,
        )


class LateEvaluations(Late):
    """Gives what stands behind the Evaluate page, which makes way for the Lab."""

    def __init__(self, late_lab: LateLab):
        super().__init__(
            "sre.studies.evaluations",
            "Evaluations",
            **late_lab.settings,
            wait=lambda: late_lab().wait_until_idle(),
        )
