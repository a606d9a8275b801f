"""Training: settings in, events out; to stop early, stop iterating."""

import copy
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from sre.data.split import Split
from sre.errors import SettingError
from sre.evaluation import classify, decide
from sre.gmr import parameter_groups
from sre.protocols import MEAN, STD, find_protocol, prepare, soft_disc


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """Settings of one run, the same for every model that is compared.

    Raises: SettingError: a number is out of range
    """

    epochs: int = 20
    batch_size: int = 64
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    warmup: float = 0.1  # share of all steps
    scale: float = 0.1  # images are scaled by up to this share either way
    shift: float = 0.1  # and shifted by up to this share of their side
    jitter: float = 0.1  # brightness and contrast, likewise
    mask_rate: float = 0.5  # share of images masked to the disc, so that both protocols are met
    rotate: bool = False  # by any angle
    side_px: int = 28
    protocol: str = "disc"  # of the validation images
    seed: int = 1

    def __post_init__(self) -> None:
        allowed = (
            ("epochs", 1 <= self.epochs <= 10_000, "from 1 to 10000"),
            ("batch_size", 2 <= self.batch_size <= 4096, "from 2 to 4096"),
            ("learning_rate", 0 < self.learning_rate <= 1, "above 0 and at most 1"),
            ("weight_decay", 0 <= self.weight_decay <= 1, "from 0 to 1"),
            ("warmup", 0 <= self.warmup < 1, "from 0 to below 1"),
            ("scale", 0 <= self.scale < 1, "from 0 to below 1"),
            ("shift", 0 <= self.shift < 1, "from 0 to below 1"),
            ("jitter", 0 <= self.jitter < 1, "from 0 to below 1"),
            ("mask_rate", 0 <= self.mask_rate <= 1, "from 0 to 1"),
            ("side_px", 24 <= self.side_px <= 224, "from 24 to 224"),
            ("seed", 0 <= self.seed < 2**63, "a whole number of at least 0"),
        )
        for name, holds, range_text in allowed:
            if not holds:
                raise SettingError(f"{name} must be {range_text}, got {getattr(self, name)}")
        find_protocol(self.protocol)


@dataclass(frozen=True, slots=True)
class StepDone:
    """One batch learned."""

    epoch: int  # counts from 1
    step: int  # within the epoch, counts from 1
    steps: int  # in an epoch
    loss: float  # mean of the batch, in nats


@dataclass(frozen=True, slots=True)
class EpochDone:
    """One pass over the training images, and how the validation images then fare, upright."""

    epoch: int
    train_loss: float
    val_accuracy: float  # 0 to 1
    val_loss: float
    is_best: bool  # so far: highest accuracy, then lowest loss
    seconds: float  # since the start


def train(
    model: nn.Module,
    train_split: Split,
    val_split: Split,
    *,
    config: TrainConfig,
    is_multi_label: bool,
) -> Iterator[StepDone | EpochDone]:
    """Train the model in place, reporting as it goes; it ends with its best epoch's state.

    The order of images and their augmentation depend on the seed alone, so that two models
    trained with one seed see the same pictures.

    Raises: SettingError: the loss is no longer a number
    """
    device = next(model.parameters()).device
    protocol = find_protocol(config.protocol)
    labels = torch.tensor(train_split.labels)
    steps = math.ceil(len(labels) / config.batch_size)
    optimizer = torch.optim.AdamW(
        parameter_groups(model, weight_decay=config.weight_decay, decays_vectors=False),
        lr=config.learning_rate,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: learning_rate_factor(step, steps * config.epochs, config.warmup)
    )
    generator = torch.Generator().manual_seed(config.seed)
    best, best_state, start = (-1.0, 0.0), {}, time.monotonic()
    for epoch in range(1, config.epochs + 1):
        model.train()
        losses = []
        # Even parts rather than a small last one: batch-norm cannot take a batch of one.
        order = torch.randperm(len(labels), generator=generator)
        for step, batch in enumerate(order.tensor_split(steps), 1):
            pixels = prepare(train_split.images[batch.numpy()], protocol, side_px=config.side_px)
            images = augment(pixels.to(device), config, generator)
            loss = loss_of(model(images), labels[batch].to(device), is_multi_label=is_multi_label)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
            _check_finite(losses[-1], epoch, config)
            yield StepDone(epoch, step, steps, losses[-1])
        model.eval()
        found = classify(
            model,
            val_split.images,
            protocol,
            side_px=config.side_px,
            angle_deg=0.0,
            is_multi_label=is_multi_label,
        )
        accuracy = float((decide(found, is_multi_label=is_multi_label) == val_split.labels).mean())
        val_loss = negative_log_likelihood(found, val_split.labels)
        _check_finite(val_loss, epoch, config)
        is_best = (accuracy, -val_loss) > best
        if is_best:
            best, best_state = (accuracy, -val_loss), copy.deepcopy(model.state_dict())
        yield EpochDone(
            epoch, float(np.mean(losses)), accuracy, val_loss, is_best, time.monotonic() - start
        )
    model.load_state_dict(best_state)
    model.eval()


def _check_finite(loss: float, epoch: int, config: TrainConfig) -> None:
    if not math.isfinite(loss):
        raise SettingError(
            f"the loss became {loss} in epoch {epoch}; try a lower learning rate than "
            f"{config.learning_rate}"
        )


def learning_rate_factor(step: int, total: int, warmup: float) -> float:
    """Linear warm-up to 1, then half a cosine down to a hundredth."""
    ramp = max(1, round(total * warmup))
    if step < ramp:
        return (step + 1) / ramp
    progress = min(1.0, (step - ramp) / max(1, total - ramp))
    return 0.01 + 0.99 * (1 + math.cos(math.pi * progress)) / 2


def loss_of(
    logits: Float[Tensor, "B K"], labels: Shaped[Tensor, "B *K"], *, is_multi_label: bool
) -> Float[Tensor, ""]:
    """Cross-entropy in nats: over the classes, or a label."""
    if is_multi_label:
        return F.binary_cross_entropy_with_logits(logits, labels.float())
    return F.cross_entropy(logits, labels)


def negative_log_likelihood(probability: np.ndarray, labels: np.ndarray) -> float:
    """Mean negative log-likelihood in nats of labels (N,) or (N, K) under probabilities (N, K)."""
    p = probability.astype(np.float64).clip(1e-12, 1 - 1e-12)
    if labels.ndim == 2:
        return float(-(labels * np.log(p) + (1 - labels) * np.log1p(-p)).mean())
    return float(-np.log(p[np.arange(len(p)), labels]).mean())


def augment(
    pixels: Float[Tensor, "B C S S"], config: TrainConfig, generator: torch.Generator
) -> Float[Tensor, "B C S S"]:
    """Scale, shift, light, perhaps turn and mask a whole batch, each image its own way; normalise.

    All random numbers are drawn in any case, so that the models of a comparison get the same ones.
    """
    batch, _, side, _ = pixels.shape
    draw = torch.rand(batch, 7, generator=generator).to(pixels.device)
    signed = 2 * draw - 1
    angle = 2 * math.pi * draw[:, 0] * float(config.rotate)
    zoom = 1 + config.scale * signed[:, 1]
    cos, sin = torch.cos(angle) / zoom, torch.sin(angle) / zoom
    shift = 2 * config.shift * signed[:, 2:4]  # the grid spans 2 across the image
    theta = torch.stack(
        [torch.stack([cos, -sin, shift[:, 0]], 1), torch.stack([sin, cos, shift[:, 1]], 1)], 1
    )
    grid = F.affine_grid(theta, list(pixels.shape), align_corners=False)
    moved = F.grid_sample(pixels, grid, mode="bilinear", padding_mode="border", align_corners=False)
    contrast = 1 + config.jitter * signed[:, 4, None, None, None]
    brightness = config.jitter * signed[:, 5, None, None, None]
    lit = ((moved - 0.5) * contrast + 0.5 + brightness).clamp(0, 1)
    # What came from outside becomes 0 after normalising, as when a protocol turns an image.
    inside = F.grid_sample(torch.ones_like(pixels[:, :1]), grid, align_corners=False)
    masked = (draw[:, 6] < config.mask_rate)[:, None, None, None]
    inside = inside * torch.where(masked, soft_disc(side).to(pixels), torch.ones_like(inside))
    return (lit - MEAN) / STD * inside
