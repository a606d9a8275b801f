"""A sweep's file: read, and every wrong key and value in it named."""

import re
import tomllib
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import torch

from sre.data.table import find_dataset
from sre.errors import SettingError, SREError
from sre.models import CLASSIFIERS, build_model, find_model
from sre.settings import TrainConfig
from sre.studies.sweep import USUAL_KERNELS, Arm, Sweep

MOST_RUNS = 10_000
MOST_TURNS = 72  # that the answers of one network are averaged over
_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
# The seed and whether images are turned belong to the sweep and to its arms.
_SETTINGS: dict[str, Any] = {
    f.name: type(f.default) for f in fields(TrainConfig) if f.name not in ("seed", "rotate")
}
_TOP = ("seeds", "width", "train", "datasets", "arms")
_TRAINED = ("name", "title", "model", "rotate", "width", "kernel_sizes", "blur_pools", "side_px")
_AVERAGED = ("name", "title", "averages", "turns")
_KINDS = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
T = TypeVar("T", int, float, str, bool)


def read_sweep(path: Path, *, width: int | None = None) -> Sweep:
    """Read and check a sweep's file.

    Args: width: of all networks in place of the file's; arms with a width of their own keep it
    Raises: SREError: the file cannot be read, or a key or value in it is wrong, by its name
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingError(
            f"cannot read {path}: {error.strerror}; name a TOML file such as bench/accuracy.toml"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingError(f"{path.name} is no TOML file: {error}; mend that line") from error
    try:
        return sweep_of(raw if width is None else raw | {"width": width})
    except SREError as error:
        raise SettingError(f"{path.name}: {error}") from error


def sweep_of(raw: Mapping[str, object]) -> Sweep:
    """Check what a sweep's file says.

    Raises: SREError: a key or value is wrong, by its name
    """
    _check_keys(raw, _TOP, "the file")
    seeds = tuple(_list(raw.get("seeds", [1]), int, "seeds"))
    common = _settings(_table(raw.get("train", {}), "train"), "train")
    width = _value(raw.get("width", 16), int, "width")
    configs = {}
    for name, table in _table(raw.get("datasets", {}), "datasets").items():
        where = f"datasets.{name}"
        if find_dataset(name).dimensions != 2:
            raise SettingError(
                f"{where} holds volumes, and the models take images; choose a 2-D data set"
            )
        settings = common | _settings(_table(table, where), where)
        with _at(where):
            configs[name] = TrainConfig(**settings)
    arms = tuple(_arms(raw.get("arms", []), width))
    if not configs or not arms:
        raise SettingError(
            "a sweep needs data sets and arms; write at least one [datasets.NAME] and one [[arms]]"
        )
    if (count := len(seeds) * len(configs) * len(arms)) > MOST_RUNS:
        raise SettingError(f"a sweep has at most {MOST_RUNS} runs, got {count}; make it smaller")
    for seed in seeds:
        with _at("seeds"):
            TrainConfig(seed=seed)
    if len(set(seeds)) < len(seeds):
        raise SettingError("seeds must differ, and one is there twice; leave it away")
    for arm in arms:
        _check_name(arm, arms)
        _check_network(arm, list(configs))
    order = sorted(
        configs, key=lambda name: find_dataset(name).splits["train"] * configs[name].epochs
    )
    return Sweep(seeds, arms, {name: configs[name] for name in order})


def _settings(table: Mapping[str, object], where: str) -> dict[str, Any]:
    _check_keys(table, _SETTINGS, where)
    return {k: _value(v, _SETTINGS[k], f"{where}.{k}") for k, v in table.items()}


def _arms(raw: object, width: int) -> Iterator[Arm]:
    if not isinstance(raw, list):
        raise SettingError("arms must be a list of tables, got something else; write [[arms]]")
    for number, given in enumerate(raw, 1):
        where = f"arm {number}"
        table = _table(given, where)
        averages = "averages" in table
        _check_keys(table, _AVERAGED if averages else _TRAINED, where)
        name = _needed(table, "name", where)
        if not _NAME.fullmatch(name):
            raise SettingError(
                f"{where}: name must be small letters and digits with single hyphens between, as "
                f"it becomes part of a file's name, got {name!r}; try sre-rotated"
            )
        where, title = f"arm {name}", _value(table.get("title", name), str, f"arm {name}: title")
        if averages:
            turns = _value(table.get("turns", 8), int, f"{where}: turns")
            yield Arm(
                name, title, "", False, 0, (),
                averages=_needed(table, "averages", where), turns=turns,
            )  # fmt: skip
            continue
        sizes = table.get("kernel_sizes", list(USUAL_KERNELS))
        yield Arm(
            name,
            title,
            _needed(table, "model", where),
            _value(table.get("rotate", False), bool, f"{where}: rotate"),
            _value(table.get("width", width), int, f"{where}: width"),
            tuple(_list(sizes, int, f"{where}: kernel_sizes")),
            _value(table.get("blur_pools", False), bool, f"{where}: blur_pools"),
            _value(table["side_px"], int, f"{where}: side_px") if "side_px" in table else None,
        )


def _check_name(arm: Arm, arms: tuple[Arm, ...]) -> None:
    where, trained = f"arm {arm.name}", [other.name for other in arms if not other.averages]
    if sum(other.name == arm.name for other in arms) > 1:
        raise SettingError(f"{where} is there twice; give each arm a name of its own")
    if not arm.averages:
        return
    if arm.averages not in trained:
        raise SettingError(
            f"{where}: averages must name an arm that is trained, got {arm.averages!r}; choose "
            f"from {', '.join(trained) or 'none, and write one'}"
        )
    if not 2 <= arm.turns <= MOST_TURNS:
        raise SettingError(f"{where}: turns must be from 2 to {MOST_TURNS}, got {arm.turns}; try 8")


def _check_network(arm: Arm, datasets: list[str]) -> None:
    if arm.averages:
        return
    with _at(f"arm {arm.name}"):
        model = find_model(arm.model)
    if model.name not in CLASSIFIERS:
        raise SettingError(
            f"arm {arm.name}: {model.name} labels pixels or takes volumes; choose from "
            f"{', '.join(CLASSIFIERS)}"
        )
    if arm.side_px is not None:
        with _at(f"arm {arm.name}"):
            TrainConfig(side_px=arm.side_px)
    for channels in {find_dataset(name).channels for name in datasets}:
        with _at(f"arm {arm.name}"), torch.device("meta"):  # which takes no memory
            build_model(
                arm.model,
                in_channels=channels,
                num_classes=2,
                width=arm.width,
                kernel_sizes=arm.kernel_sizes,
            )


@contextmanager
def _at(where: str) -> Iterator[None]:
    try:
        yield
    except SREError as error:
        raise SettingError(f"{where}: {error}") from error


def _check_keys(table: Mapping[str, object], known: Collection[str], where: str) -> None:
    for key in table:
        if key not in known:
            raise SettingError(
                f"{where} has the unknown key {key!r}; choose from {', '.join(known)}"
            )


def _table(value: object, where: str) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        raise SettingError(f"{where} must be a table, got {value!r}; write [{where}]")
    return value


def _needed(table: Mapping[str, object], key: str, where: str) -> str:
    if key not in table:
        raise SettingError(f"{where} has no {key}, and needs one; write {key} = ...")
    return _value(table[key], str, f"{where}: {key}")


def _list(value: object, kind: type[T], where: str) -> list[T]:
    if not isinstance(value, list) or not value:
        raise SettingError(f"{where} must be a list, got {value!r}; write it in brackets")
    return [_value(one, kind, where) for one in value]


def _value(value: object, kind: type[T], where: str) -> T:
    if kind is float and type(value) is int:
        return kind(value)
    if not isinstance(value, kind) or type(value) is not kind:  # true is no number
        raise SettingError(f"{where} must be {_KINDS[kind]}, got {value!r}; write one")
    return value
