"""Everything that the Train page asks for, as JSON-able answers."""

import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from sre.errors import Dropped, SettingError, SREError
from sre.models import CLASSIFIERS, find_model
from sre.protocols import PROTOCOLS
from sre.studies.example_run import read_example
from sre.studies.job_queue import MOST_QUEUED, JobQueue
from sre.studies.job_settings import MOST, JobSettings
from sre.studies.jobs import Job, Status
from sre.studies.naming import SIZE_PX, kind_of
from sre.studies.plan import count_costs, estimate_apart
from sre.studies.shelf import trained_dir

Json = dict[str, Any]
LISTED = 30  # jobs, newest first
_OFF = (
    "training is switched off on this server; run the app on a machine of your own, with "
    "python app.py"
)
_USUAL: Mapping[str, object] = MappingProxyType(
    {
        "model": "sre_resnet18", "kernel_sizes": [9, 9, 5, 5], "batch_size": 64,
        "learning_rate": 2e-3, "rotate": False, "protocol": "disc", "seed": 1, "scale": 0.1,
        "shift": 0.1, "mask_rate": 0.5, "balance": False,
        "blur_pools": False, "side_px": SIZE_PX,
    }
)  # fmt: skip
PRESETS = (
    {
        "name": "minutes",
        "title": "Two minutes on a CPU",
        "description": "A narrow network with small kernels and batches, and as many of 20 epochs "
        "as fit into two minutes, without what pays off in long runs only: images are always "
        "masked to the disc, as in the test, and neither scaled nor shifted.",
        "settings": {
            **_USUAL, "width": 16, "kernel_sizes": [5, 5, 3, 3], "epochs": 20, "minutes": 2,
            "batch_size": 32, "scale": 0.0, "shift": 0.0, "mask_rate": 1.0, "balance": True,
        },
    },
    {
        "name": "lab",
        "title": "Like the networks of the Lab",
        "description": "Width 16, 20 epochs, no limit of time. The networks that come with the app "
        "were trained like this, for 8 to 40 epochs; those of BloodMNIST, cells and digits at a "
        "learning rate of 0.004, the radial one with its bands at one pace and kernels 5, 5, 3, 3.",
        "settings": {**_USUAL, "width": 16, "epochs": 20, "minutes": None},
    },
    {
        "name": "fine",
        "title": "SRE on a finer grid",
        "description": "What did best on validation images at the multiply-adds of a CNN of width "
        "16: width 19, images enlarged to 42 px, on which turns are finer, anti-aliased pools, "
        "kernels 5, 5, 3, 3, bands at one pace, and a learning rate of 0.004.",
        "settings": {
            **_USUAL, "width": 19, "kernel_sizes": [5, 5, 3, 3], "epochs": 20, "minutes": None,
            "learning_rate": 4e-3, "balance": True, "blur_pools": True, "side_px": 42,
        },
    },
    {
        "name": "paper",
        "title": "The network of the paper",
        "description": "Width 64, kernels 9, 9, 5, 5, 100 epochs, batches of 128, seed 1, no "
        "rotation, as the authors train on MedMNIST. Not the same: AdamW instead of SGD (theirs: "
        "learning rate 0.02, momentum 0.9, weight decay 0.001), images of 28 px instead of 32, "
        "small random scalings and shifts instead of random crops, and the epoch is chosen on "
        "validation images, not on test images. On a CPU this takes hours or days.",
        "settings": {
            **_USUAL, "width": 64, "epochs": 100, "batch_size": 128, "minutes": None,
            "protocol": "paper",
        },
    },
)  # fmt: skip


@dataclass(slots=True)
class Trainer:
    """Training for a page: settings in, jobs out. What comes from a browser may be anything."""

    data_dir: Path
    cache_dir: Path
    device: str = "cpu"
    is_allowed: bool = True
    queue: JobQueue = field(init=False)
    _estimating: threading.Lock = field(default_factory=threading.Lock)
    _newest: dict[str, int] = field(default_factory=dict)  # ticket of a session's last estimate
    _known: dict[str, Json] = field(default_factory=dict)  # estimates by settings

    def __post_init__(self) -> None:
        self.queue = JobQueue(
            self.cache_dir / "jobs", self.data_dir, trained_dir(self.cache_dir), self.device
        )

    def form(self) -> Json:
        """What may be chosen, the presets, and the jobs that there are."""
        self._pump()
        return {
            "is_allowed": self.is_allowed,
            "off": "" if self.is_allowed else _OFF,
            "models": [
                {"name": m.name, "title": kind_of(m.name), "architecture": m.title}
                | {"summary": m.summary, "family": m.family}
                for m in map(find_model, CLASSIFIERS)
            ],
            "protocols": list(PROTOCOLS),
            "presets": [dict(preset) for preset in PRESETS],
            "most": dict(MOST) | {"queued": MOST_QUEUED},
            "device": self.device,
            "example": read_example(),
            "jobs": self.jobs(),
        }

    def describe(self, settings: object) -> Json:
        """Parameters, multiply-adds of an image, and the command that does the same."""
        asked = JobSettings.from_request(settings)
        parameters, multiply_adds = count_costs(asked)
        return {
            "parameters": parameters,
            "multiply_adds": multiply_adds,
            "command": asked.command(),
        }

    def estimate(self, settings: object, ticket: object, session: object) -> Json:
        """Seconds of an epoch and of the whole, from a few steps on this device.

        Raises: Dropped: the session has asked for another estimate meanwhile
        """
        asked = JobSettings.from_request(settings)
        self._check_allowed()
        if not isinstance(session, str) or not isinstance(ticket, int) or len(session) > 100:
            raise SettingError("the request has no session and ticket; reload the page")
        if len(self._newest) > 1000:
            self._newest.clear()
        self._newest[session] = ticket
        key = repr(asked)
        with self._estimating:
            if self._newest.get(session, ticket) != ticket:
                raise Dropped("the settings have changed meanwhile")
            is_alone = not self._is_busy()
            if key not in self._known or not self._known[key]["is_alone"]:
                found = estimate_apart(asked, data_dir=self.data_dir, device=self.device)
                epochs = asked.config.epochs
                if asked.minutes is not None:
                    epochs = found.epochs_within(60 * asked.minutes, most=epochs)
                if len(self._known) > 200:
                    self._known.clear()
                total = {"epochs": epochs, "total_s": found.epoch_s * epochs}
                self._known[key] = asdict(found) | total | {"is_alone": is_alone}
            return self._known[key]

    def start(self, settings: object) -> Json:
        """Queue a job, unless one with these settings is under way or waits."""
        asked = JobSettings.from_request(settings)
        self._check_allowed()
        job, is_new = self.queue.find_or_start(asked)
        return {"job": job.name, "is_new": is_new, "jobs": self.jobs()}

    def jobs(self) -> list[Json]:
        """The newest jobs, in short, newest first."""
        found = self.queue.jobs()
        waiting = sorted((s.changed, j.name) for j, s in found if s.state == "queued")
        place = {name: number for number, (_, name) in enumerate(waiting, 1)}
        return [
            _view(job, status) | {"place": place.get(job.name)}
            for job, status in reversed(found[-LISTED:])
        ]

    def follow(self, name: object, since: object) -> Json:
        """The jobs, and of one of them what has happened since an event's number."""
        self._pump()
        if name is None:
            return {"jobs": self.jobs()}
        if not isinstance(since, int) or isinstance(since, bool) or since < 0:
            raise SettingError(
                f"since must be a whole number of at least 0, got {str(since)[:40]!r}"
            )
        job = self._find(name)
        status = self.queue.status(job)  # before the events, which then hold all of it
        events, following = job.events(since)
        return {
            "jobs": self.jobs(),
            "job": _view(job, status) | {"status": asdict(status)},
            "events": events,
            "next": following,
        }

    def stop(self, name: object) -> Json:
        """End a running job with what is best so far; a queued one leaves."""
        self._check_allowed()
        self.queue.stop(self._find(name))
        return {"jobs": self.jobs()}

    def resume(self, name: object) -> Json:
        """Queue a job that broke off."""
        self._check_allowed()
        self.queue.resume(self._find(name))
        return {"jobs": self.jobs()}

    def remove(self, name: object) -> Json:
        """Forget a job; its checkpoint stays."""
        self._check_allowed()
        self.queue.remove(self._find(name))
        return {"jobs": self.jobs()}

    def _find(self, name: object) -> Job:
        if not isinstance(name, str):
            raise SettingError(f"a run's name must be a text, got {str(name)[:40]!r}")
        return self.queue.find(name)

    def _check_allowed(self) -> None:
        if not self.is_allowed:
            raise SettingError(_OFF)

    def _pump(self) -> None:
        if self.is_allowed:
            self.queue.pump()

    def _is_busy(self) -> bool:
        return any(status.state == "running" for _, status in self.queue.jobs())


def _view(job: Job, status: Status) -> Json:
    try:
        settings = job.settings().to_request()
    except SREError:
        settings = {}
    return {
        "name": job.name,
        "settings": settings,
        "state": status.state,
        "message": status.message,
        "checkpoint": status.checkpoint,
        "epoch": status.epoch,
        "epochs": status.epochs,
    }
