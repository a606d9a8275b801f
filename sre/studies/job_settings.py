"""What a training job may ask for: names from the tables, numbers within limits."""

import math
import shlex
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any

from sre.data.table import find_dataset
from sre.errors import SettingError
from sre.models import CLASSIFIERS, MIN_SIDE_PX, find_model
from sre.settings import TrainConfig
from sre.studies.naming import SIZE_PX
from sre.studies.shelf import MOST_SIDE_PX

# Tighter than the library's: a page's visitors share one machine.
MOST = MappingProxyType(
    {"width": 128, "epochs": 1000, "batch_size": 512, "minutes": 1440, "side_px": MOST_SIDE_PX}
)
LEAST = MappingProxyType({"width": 1, "epochs": 1, "batch_size": 2, "side_px": MIN_SIDE_PX})
# Of a TrainConfig, what the page lets one choose; the rest stays as the library has it.
CHOICES = (
    "epochs", "batch_size", "learning_rate", "rotate", "protocol", "seed", "scale", "shift",
    "mask_rate", "side_px", "balance",
)  # fmt: skip
# As the page calls them, where that is another word than the library's.
_WORDS = MappingProxyType(
    {
        "batch_size": "the number of images a step", "side_px": "the image side",
        "learning_rate": "the learning rate", "mask_rate": "the masked share",
        "scale": "the scaling", "shift": "the shift", "seed": "the seed",
    }
)  # fmt: skip
_KINDS = MappingProxyType(
    {"rotate": bool, "balance": bool, "protocol": str}
    | dict.fromkeys(("learning_rate", "scale", "shift", "mask_rate"), float)
)


@dataclass(frozen=True, slots=True)
class JobSettings:
    """One run, as a visitor asks for it.

    Raises: SREError: a name is not in its table, or a number is out of range
    """

    dataset: str
    model: str
    width: int
    kernel_sizes: tuple[int, ...]
    config: TrainConfig
    minutes: float | None  # budget for training
    blur_pools: bool = False

    def __post_init__(self) -> None:
        entry = find_dataset(self.dataset)
        if entry.dimensions != 2:
            raise SettingError(
                f"{entry.title} holds volumes, and training here takes images; choose a 2-D data "
                "set"
            )
        if find_model(self.model).name not in CLASSIFIERS:
            raise SettingError(
                f"{self.model} is no classifier of images; choose from {', '.join(CLASSIFIERS)}"
            )
        config = self.config
        _check_limits(
            width=self.width,
            epochs=config.epochs,
            batch_size=config.batch_size,
            side_px=config.side_px,
        )
        if self.minutes is not None and not 0.1 <= self.minutes <= MOST["minutes"]:
            raise SettingError(
                f"minutes must be from 0.1 to {MOST['minutes']}, or left empty for no limit; got "
                f"{self.minutes:g}"
            )
        sizes = self.kernel_sizes
        if len(sizes) != 4 or any(k % 2 == 0 or not 1 <= k <= 15 for k in sizes):
            raise SettingError(
                "kernel sizes must be four odd numbers from 1 to 15, got "
                f"{','.join(map(str, sizes)) or 'nothing'}; try 9,9,5,5"
            )

    @classmethod
    def from_request(cls, request: object) -> "JobSettings":
        """Read what a browser, or a file, holds; it may be anything.

        Raises: SREError: what is wrong with it
        """
        if isinstance(request, dict) and request:
            request = {"side_px": SIZE_PX} | request  # runs of earlier versions have none
        names = ("dataset", "model", "width", "kernel_sizes", "blur_pools", "minutes", *CHOICES)
        missing = [n for n in names if n not in request] if isinstance(request, dict) else names
        if missing:
            raise SettingError(f"the settings lack {', '.join(missing)}; reload the page")
        assert isinstance(request, dict)
        sizes, minutes = request["kernel_sizes"], request["minutes"]
        if not isinstance(sizes, list) or len(sizes) > 8:
            raise SettingError("kernel sizes must be four odd numbers; try 9,9,5,5")
        chosen: dict[str, Any] = {
            name: _read(request[name], name, _KINDS.get(name, int)) for name in CHOICES
        }
        width = _read(request["width"], "width", int)
        numbers = {name: chosen[name] for name in LEAST if name in chosen}
        _check_limits(width=width, **numbers)  # before the library's, which are wider
        return cls(
            dataset=_read(request["dataset"], "dataset", str),
            model=_read(request["model"], "model", str),
            width=width,
            kernel_sizes=tuple(_read(k, "a kernel size", int) for k in sizes),
            config=_configure(chosen),
            minutes=None if minutes is None else _read(minutes, "minutes", float),
            blur_pools=_read(request["blur_pools"], "blur_pools", bool),
        )

    def to_request(self) -> dict[str, object]:
        """Give the settings as ``from_request`` takes them."""
        return {
            "dataset": self.dataset,
            "model": self.model,
            "width": self.width,
            "kernel_sizes": list(self.kernel_sizes),
            "blur_pools": self.blur_pools,
            "minutes": self.minutes,
        } | {name: getattr(self.config, name) for name in CHOICES}

    def training(self) -> dict[str, Any]:
        """What `sre.studies.train_run.run_training` takes of them, by name."""
        return {
            "dataset": self.dataset,
            "model_name": self.model,
            "config": self.config,
            "width": self.width,
            "kernel_sizes": self.kernel_sizes,
            "blur_pools": self.blur_pools,
            "command": self.command(),
            "budget_s": None if self.minutes is None else 60 * self.minutes,
        }

    def command(self) -> str:
        """Give the command that trains the same network without the page."""
        sizes = ",".join(map(str, self.kernel_sizes))
        parts = ["python", "-m", "sre", "train", self.dataset, self.model]
        parts += ["--width", str(self.width), "--kernel-sizes", sizes]
        parts += ["--blur-pools"] if self.blur_pools else []
        for field in fields(TrainConfig):
            value = getattr(self.config, field.name)
            flag = f"--{field.name.replace('_', '-')}"
            if value != field.default:
                parts += [flag] if value is True else [flag, str(value)]
        if self.minutes is not None:
            parts += ["--minutes", f"{self.minutes:g}"]
        return shlex.join(parts)


def _check_limits(**numbers: int) -> None:
    for name, value in numbers.items():
        if not LEAST[name] <= value <= MOST[name]:
            words = _WORDS.get(name, name)
            raise SettingError(f"{words} must be from {LEAST[name]} to {MOST[name]}, got {value}")


def _configure(chosen: dict[str, Any]) -> TrainConfig:
    try:
        return TrainConfig(**chosen)
    except SettingError as error:
        name, _, rest = str(error).partition(" ")
        raise SettingError(f"{_WORDS.get(name, name)} {rest}") from error


def _read(value: object, name: str, kind: type) -> Any:
    """Take a value only if it is of its kind; a whole number may stand for a broken one."""
    given = float(value) if kind is float and type(value) is int and abs(value) < 2**53 else value
    if type(given) is not kind or (kind is float and not math.isfinite(given)):  # type: ignore[arg-type]
        what = {int: "a whole number", float: "a number", bool: "yes or no", str: "a text"}[kind]
        said = "nothing" if value is None else repr(str(value)[:40])
        raise SettingError(f"{_WORDS.get(name, name)} must be {what}, got {said}")
    if kind is str and len(str(given)) > 100:
        raise SettingError(f"{name} must be a text of at most 100 characters")
    return given
