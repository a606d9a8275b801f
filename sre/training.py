"""Training: settings in, events out; to stop early, stop iterating, or say so at the next step."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from sre.augmentation import augment
from sre.balancing import balance_bands, settle_bands
from sre.data.split import Split
from sre.errors import TrainingError
from sre.evaluation import classify, decide
from sre.gmr import parameter_groups
from sre.processes import ALONE, Processes, check_share
from sre.protocols import find_protocol, prepare
from sre.runstate import load_run, part_of, put_state, save_run, take_state
from sre.settings import TrainConfig

LEAST_BATCH = 2  # batch-norm cannot take one image
_MEMORY_SHARE = 0.5  # of what a GPU has free, that the images may take
TURNED_DEG = (75.0, 210.0)  # at which validation images are looked at, beside upright


@dataclass(frozen=True, slots=True)
class StepDone:
    """One batch learned."""

    epoch: int  # counts from 1
    step: int  # within the epoch, counts from 1
    steps: int  # in an epoch
    loss: float  # mean of the batch, in nats


@dataclass(frozen=True, slots=True)
class EpochDone:
    """One pass over the training images, and how the validation images then fare."""

    epoch: int
    train_loss: float
    val_accuracy: float  # 0 to 1, upright
    val_turned_accuracy: float  # mean over TURNED_DEG
    val_loss: float  # upright
    is_best: bool  # so far: highest accuracy, then lowest loss
    seconds: float  # of training, those before a break included


@dataclass(frozen=True, slots=True)
class BatchHalved:
    """The device ran out of memory; the epoch begins anew with smaller batches."""

    epoch: int
    batch_size: int


def train(
    model: nn.Module,
    train_split: Split,
    val_split: Split,
    *,
    config: TrainConfig,
    is_multi_label: bool,
    keep: Path | None = None,
    settings: str = "",
    should_stop: Callable[[], bool] = lambda: False,
    processes: Processes = ALONE,
) -> Iterator[StepDone | EpochDone | BatchHalved]:
    """Train the model in place, reporting as it goes; it ends with its best epoch's state.

    The order of images and their augmentation depend on the seed alone, so that two models
    trained with one seed see the same pictures.

    Args: keep: file that holds the run after every epoch. If it is there, and of the same
            ``settings``, the run goes on from it: the events of its epochs are told again first
        should_stop: asked at every step; the epoch under way then ends early and still counts
        processes: those that train this model together, each of which calls this
    Raises: TrainingError: the loss is no longer a number, the device fails or has too little
            memory, or ``keep`` cannot be written; the model then has its best state so far
    """
    if config.balance:
        balance_bands(model)
    run = _Run.start(model, config)
    if keep is not None and (found := load_run(keep, settings=settings)):
        run.load(*found)
        yield from run.history
    learner = _Learner(run, train_split, val_split, config, is_multi_label, processes)
    try:
        state = run.tensors()  # where the next epoch begins
        while run.epoch < config.epochs and not run.stopped:
            try:
                yield from learner.learn(should_stop)
                done = learner.validate()
            except (RuntimeError, MemoryError) as error:
                if processes.count > 1:
                    # The others wait for this one's part, and cannot go back with it.
                    raise processes.failure(error) from error
                run.halve(state, error)
                yield BatchHalved(run.epoch + 1, run.batch_size)
                continue
            run.history.append(done)
            state = run.tensors()
            if keep is not None and processes.is_main:
                facts = run.facts() | {"epochs": config.epochs}
                save_run(keep, state, facts, settings=settings)
            yield done
    finally:
        if run.best_state:
            model.load_state_dict(run.best_state)
        settle_bands(model)
        model.eval()


@dataclass(slots=True)
class _Run:
    """What one epoch hands to the next."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    generator: torch.Generator
    batch_size: int
    history: list[EpochDone] = field(default_factory=list)
    best: tuple[float, float] = (-1.0, 0.0)
    best_state: dict[str, Tensor] = field(default_factory=dict)
    losses: list[float] = field(default_factory=list)  # of the epoch under way
    stopped: bool = False
    since: float = field(default_factory=time.monotonic)

    @classmethod
    def start(cls, model: nn.Module, config: TrainConfig) -> "_Run":
        groups = parameter_groups(model, weight_decay=config.weight_decay, decays_vectors=False)
        fused = next(model.parameters()).device.type in ("cpu", "cuda")
        optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, fused=fused)
        generator = torch.Generator().manual_seed(config.seed)
        return cls(model, optimizer, generator, config.batch_size)

    @property
    def epoch(self) -> int:
        return len(self.history)

    def tensors(self) -> dict[str, Tensor]:
        best = {f"best.{name}": value for name, value in self.best_state.items()}
        now = take_state(self.model, self.optimizer)
        return now | best | {"generator": self.generator.get_state()}

    def facts(self) -> dict[str, object]:
        history = [asdict(event) for event in self.history]
        return {"batch_size": self.batch_size, "best": self.best, "history": history}

    def load(self, tensors: dict[str, Tensor], facts: dict) -> None:
        self.restore(tensors)
        device = next(self.model.parameters()).device
        self.best_state = {n: v.to(device) for n, v in part_of(tensors, "best").items()}
        self.batch_size, self.best = facts["batch_size"], tuple(facts["best"])
        self.history = [EpochDone(**event) for event in facts["history"]]
        if self.history:
            self.since -= self.history[-1].seconds

    def restore(self, tensors: dict[str, Tensor]) -> None:
        put_state(tensors, self.model, self.optimizer)
        self.generator.set_state(tensors["generator"])

    def halve(self, before: dict[str, Tensor], error: Exception) -> None:
        """Go back to where the epoch began, with half the batch, if memory was what lacked."""
        if not _is_out_of_memory(error):
            if "CUDA" in str(error) or isinstance(error, torch.AcceleratorError):
                raise TrainingError(
                    "the GPU stopped working in epoch "
                    f"{self.epoch + 1}; start the run again, which goes on from the epoch before"
                ) from error
            raise error
        if self.batch_size // 2 < LEAST_BATCH:
            raise TrainingError(
                f"memory is too small even for batches of {self.batch_size} images; choose a "
                "smaller width or side"
            ) from error
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self.restore(before)
        self.batch_size //= 2


def _is_out_of_memory(error: Exception) -> bool:
    # A CPU's allocator raises a plain RuntimeError.
    kinds = (torch.OutOfMemoryError, MemoryError)
    return isinstance(error, kinds) or "t allocate memory" in str(error)


class _Learner:
    """The images of one run, and what is done with them."""

    def __init__(
        self,
        run: _Run,
        train_split: Split,
        val_split: Split,
        config: TrainConfig,
        is_multi_label: bool,
        processes: Processes,
    ):
        self.run, self.config, self.is_multi_label = run, config, is_multi_label
        self.processes, self.device = processes, next(run.model.parameters()).device
        self.protocol = find_protocol(config.protocol)
        self.images = hold(train_split.images, self.device)
        self.labels = torch.tensor(train_split.labels).to(self.device)
        self.val_images, self.val_labels = hold(val_split.images, self.device), val_split.labels

    def learn(self, should_stop: Callable[[], bool]) -> Iterator[StepDone]:
        """Pass over the training images once."""
        run, config = self.run, self.config
        run.model.train()
        run.losses = []
        steps = math.ceil(len(self.labels) / run.batch_size)
        total = steps * config.epochs
        check_share(len(self.labels) // steps, self.processes)
        # Even parts rather than a small last one: batch-norm cannot take a batch of one.
        order = torch.randperm(len(self.labels), generator=run.generator)
        for step, batch in enumerate(order.tensor_split(steps), 1):
            factor = learning_rate_factor(run.epoch * steps + step - 1, total, config.warmup)
            for group in run.optimizer.param_groups:
                group["lr"] = config.learning_rate * factor
            pixels = prepare(select(self.images, batch), self.protocol, side_px=config.side_px).to(
                self.device
            )
            run.losses.append(self._step(augment(pixels, config, run.generator), batch))
            self._check_finite(run.losses[-1])
            yield StepDone(run.epoch + 1, step, steps, run.losses[-1])
            if should_stop():
                run.stopped = True
                return

    def _step(self, images: Tensor, batch: Tensor) -> float:
        # On a GPU in bfloat16 and channels-last, which its tensor cores want.
        is_gpu = self.device.type == "cuda"
        layout = torch.channels_last if is_gpu else torch.contiguous_format
        with torch.autocast("cuda", dtype=torch.bfloat16, enabled=is_gpu):
            images = self.processes.share_of(images)
            logits = self.run.model(images.to(memory_format=layout))
        labels = self.labels[self.processes.share_of(batch).to(self.device)]
        loss = loss_of(logits.float(), labels, is_multi_label=self.is_multi_label)
        loss = loss * (len(labels) / len(batch))  # so that the sum over processes is the mean
        self.run.optimizer.zero_grad()
        loss.backward()
        self.processes.sum_gradients(self.run.model)
        self.run.optimizer.step()
        return self.processes.sum(loss.detach()).item()

    def validate(self) -> EpochDone:
        """Look at the validation images, and keep the state if they never fared better."""
        run = self.run
        run.model.eval()
        upright, *turned = (self._answers(angle) for angle in (0.0, *TURNED_DEG))
        accuracy, loss = self._accuracy(upright), negative_log_likelihood(upright, self.val_labels)
        self._check_finite(loss)
        is_best = (accuracy, -loss) > run.best
        if is_best:
            run.best = (accuracy, -loss)
            run.best_state = {
                name: value.detach().clone(memory_format=torch.contiguous_format)
                for name, value in run.model.state_dict().items()
            }
        return EpochDone(
            run.epoch + 1,
            float(np.mean(run.losses)),
            accuracy,
            float(np.mean([self._accuracy(found) for found in turned])),
            loss,
            is_best,
            time.monotonic() - run.since,
        )

    def _answers(self, angle_deg: float) -> np.ndarray:
        return classify(
            self.run.model,
            self.val_images,
            self.protocol,
            side_px=self.config.side_px,
            angle_deg=angle_deg,
            is_multi_label=self.is_multi_label,
            batch_size=2 * self.run.batch_size,  # without gradients there is room
        )

    def _accuracy(self, found: np.ndarray) -> float:
        decided = decide(found, is_multi_label=self.is_multi_label)
        return float((decided == self.val_labels).mean())

    def _check_finite(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise TrainingError(
                f"the loss became {loss} in epoch {self.run.epoch + 1}; try a lower learning rate "
                f"than {self.config.learning_rate}"
            )


def hold(images: np.ndarray, device: torch.device) -> np.ndarray | Tensor:
    """Bring all images to a GPU at once, if they take at most half of what it has free."""
    if device.type != "cuda" or images.nbytes > _MEMORY_SHARE * torch.cuda.mem_get_info(device)[0]:
        return images
    return torch.tensor(images).to(device)


def select(images: np.ndarray | Tensor, batch: Tensor) -> np.ndarray | Tensor:
    """Pick images by their indices, wherever they are."""
    if isinstance(images, np.ndarray):
        return images[batch.numpy()]
    return images[batch.to(images.device)]


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
