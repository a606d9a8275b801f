"""How long will a training run take on this device? A few steps of it are tried."""

import copy
import math
import time
from dataclasses import dataclass, replace
from statistics import median

import numpy as np
from torch import nn

from sre.data.split import Split
from sre.settings import TrainConfig
from sre.training import EpochDone, StepDone, train

WARM_STEPS, STEPS, MOST_STEPS = 2, 5, 30
_ENOUGH_S = 1.5  # of steps: quick ones are tried more often, as each strays more
_VALIDATION_IMAGES = 256  # fewer would be judged by what any number of them costs
# A plan for a budget leaves a tenth of it, as other programs may want the processor later.
_PLANNED_SHARE = 0.9


@dataclass(frozen=True, slots=True)
class Estimate:
    """Times in seconds, on the device that the model lies on."""

    step_s: float  # median
    epoch_s: float  # validation included
    total_s: float

    def epochs_within(self, budget_s: float, *, most: int) -> int:
        """Give how many epochs a budget is good for: at least one, and at most those wanted."""
        return max(1, min(most, int(_PLANNED_SHARE * budget_s / self.epoch_s)))


def estimate_run(
    model: nn.Module,
    train_split: Split,
    val_split: Split,
    *,
    config: TrainConfig,
    is_multi_label: bool,
) -> Estimate:
    """Time a few steps and a part of the validation, on a copy of the model.

    Raises: TrainingError: the model does not even take these steps
    """
    most = (WARM_STEPS + MOST_STEPS) * config.batch_size
    parts = _some(train_split, most), _some(val_split, _VALIDATION_IMAGES)
    network = copy.deepcopy(model)
    if _chooses_kernels(network):
        # At first sight of a layer's input kernels are built and tried, in validation, too.
        for _ in train(
            network, *parts, config=replace(config, epochs=1), is_multi_label=is_multi_label,
            should_stop=lambda: True,
        ):  # fmt: skip
            pass
    steps: list[float] = []
    last = time.monotonic()

    def is_enough() -> bool:
        tried = steps[WARM_STEPS:]
        return len(tried) >= STEPS and sum(tried) >= _ENOUGH_S

    for event in train(
        network,
        *parts,
        config=replace(config, epochs=1),
        is_multi_label=is_multi_label,
        should_stop=is_enough,
    ):
        now = time.monotonic()
        match event:
            case StepDone():
                steps.append(now - last)
            case EpochDone():
                validation_s = now - last
        last = now
    step_s = median(steps[WARM_STEPS:] or steps)
    epoch_s = step_s * math.ceil(len(train_split) / config.batch_size)
    epoch_s += validation_s * len(val_split) / len(parts[1])
    return Estimate(step_s, epoch_s, epoch_s * config.epochs)


def _chooses_kernels(network: nn.Module) -> bool:
    return next(network.parameters()).device.type == "cuda"


def _some(split: Split, count: int) -> Split:
    # Those of a split that are first may all be of one class, which is of no concern here.
    return Split(np.array(split.images[:count]), np.array(split.labels[:count]))
