"""What runs does a sweep have, and in which order? Nothing is read or trained here."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import TypeVar

from sre.checkpoints import fingerprint_of
from sre.errors import SettingError
from sre.settings import TrainConfig

USUAL_KERNELS = (9, 9, 5, 5)
T = TypeVar("T", int, str)


@dataclass(frozen=True, slots=True)
class Arm:
    """One contender: a network and how it is trained, or another arm's, asked more than once."""

    name: str
    title: str
    model: str
    rotate: bool
    width: int
    kernel_sizes: tuple[int, ...]
    blur_pools: bool = False
    side_px: int | None = None  # of its images; None: as the sweep has it
    averages: str = ""  # the arm whose answers it averages; empty: it is trained by itself
    turns: int = 1  # over how many angles


@dataclass(frozen=True, slots=True)
class SweepRun:
    """One training run of a sweep."""

    dataset: str
    arm: str
    model: str
    width: int
    kernel_sizes: tuple[int, ...]
    config: TrainConfig
    blur_pools: bool = False

    @property
    def name(self) -> str:
        return f"{self.dataset}-{self.arm}-w{self.width}-s{self.config.seed}"

    @property
    def file_name(self) -> str:
        return f"{self.name}.safetensors"

    @property
    def command(self) -> str:
        """The command that does this one run by itself."""
        words = ["python", "-m", "sre", "train", self.dataset, self.model]
        words += ["--width", str(self.width)]
        if self.kernel_sizes != USUAL_KERNELS:
            words += ["--kernel-sizes", ",".join(map(str, self.kernel_sizes))]
        words += ["--blur-pools"] if self.blur_pools else []
        for f in fields(TrainConfig):
            value = getattr(self.config, f.name)
            if value != f.default:
                flag = f"--{f.name.replace('_', '-')}"
                words += [flag] if value is True else [flag, str(value)]
        return shlex.join(words)

    def fingerprint(self, dataset_md5: str) -> str:
        """Give the fingerprint of its card, for data of that md5."""
        config = self.config
        return fingerprint_of(
            self.dataset, dataset_md5, self.model, self.width, self.kernel_sizes,
            config.side_px, asdict(config), self.blur_pools,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Sweep:
    """What a file asks for."""

    seeds: tuple[int, ...]
    arms: tuple[Arm, ...]
    configs: Mapping[str, TrainConfig]  # by data set, least work first; seed and rotation not set

    def run_of(self, dataset: str, arm: Arm, seed: int) -> SweepRun:
        """Describe a run; that of an averaging arm is the run whose answers it averages."""
        if arm.averages:
            return self.run_of(dataset, self.arm(arm.averages), seed)
        config = replace(self.configs[dataset], rotate=arm.rotate, seed=seed)
        if arm.side_px is not None:
            config = replace(config, side_px=arm.side_px)
        return SweepRun(
            dataset, arm.name, arm.model, arm.width, arm.kernel_sizes, config, arm.blur_pools
        )

    def arm(self, name: str) -> Arm:
        return next(arm for arm in self.arms if arm.name == name)

    def part(
        self, *, datasets: Sequence[str] | None = None, seeds: Sequence[int] | None = None
    ) -> "Sweep":
        """Take some of its data sets and seeds; None takes all.

        Raises: SettingError: the sweep has no such data set or seed, or none was given
        """
        chosen = _some("data set", datasets, list(self.configs))
        return replace(
            self,
            seeds=tuple(_some("seed", seeds, list(self.seeds))),
            configs={name: self.configs[name] for name in chosen},
        )

    def runs(self) -> tuple[SweepRun, ...]:
        """List all runs: seed after seed, so that a sweep that is stopped has whole seeds."""
        return tuple(
            self.run_of(dataset, arm, seed)
            for seed in self.seeds
            for dataset in self.configs
            for arm in self.arms
            if not arm.averages
        )


def _some(what: str, wanted: Sequence[T] | None, there: list[T]) -> list[T]:
    if wanted is None:
        return there
    strange = [name for name in wanted if name not in there]
    if strange or not wanted:
        said = f"got {strange[0]!r}" if strange else "none was named"
        raise SettingError(
            f"a part of a sweep must be of its {what}s, {said}; choose from "
            f"{', '.join(map(str, there))}"
        )
    return [name for name in there if name in wanted]
