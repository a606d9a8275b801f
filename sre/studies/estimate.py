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

WARM_STEPS, STEPS = 2, 5
_VALIDATION_IMAGES = 128
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
    few = (WARM_STEPS + STEPS) * config.batch_size
    parts = _some(train_split, few), _some(val_split, _VALIDATION_IMAGES)
    steps, last = [], time.monotonic()
    for event in train(
        copy.deepcopy(model),
        *parts,
        config=replace(config, epochs=1),
        is_multi_label=is_multi_label,
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


def _some(split: Split, count: int) -> Split:
    # Those of a split that are first may all be of one class, which is of no concern here.
    return Split(np.array(split.images[:count]), np.array(split.labels[:count]))
