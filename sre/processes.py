"""Training on several GPUs or machines: each process takes a slice of every batch.

All processes draw the same order and the same augmentation, and have the same weights after every
step: the gradients that they add up are those of the whole batch, and so are the statistics that
batch-norm takes. What comes of it is that of one process, to rounding.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn

from sre.errors import SettingError, TrainingError

NEEDS_ACCELERATE = (
    "training on several processes needs accelerate, which is not installed; run pip install "
    "'sre-lab[distributed]'"
)


@dataclass(frozen=True, slots=True)
class Processes:
    """The processes that train one network together, and which of them this one is.

    >>> Processes(rank=1, count=3).share_of(torch.arange(8))
    tensor([3, 4, 5])
    """

    rank: int = 0
    count: int = 1
    device: str = "cpu"

    @property
    def is_main(self) -> bool:
        """Tell whether this one writes the files and does the talking."""
        return self.rank == 0

    def failure(self, error: Exception) -> TrainingError:
        """Say that this one failed, and what to do."""
        return TrainingError(
            f"process {self.rank + 1} of {self.count} failed ({str(error).partition(chr(10))[0]}); "
            "start the run again, which goes on from the epoch before, or choose a smaller batch"
        )

    def share_of(self, batch: Tensor) -> Tensor:
        """Select this process's part of a batch; parts differ by one image at most."""
        return batch.tensor_split(self.count)[self.rank]

    def sum_gradients(self, model: nn.Module) -> None:
        """Add up the gradients of all processes, in one message."""
        if self.count == 1:
            return
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        summed = self.sum(torch.cat([gradient.flatten() for gradient in gradients]))
        for gradient, part in zip(
            gradients, summed.split([g.numel() for g in gradients]), strict=True
        ):
            gradient.copy_(part.view_as(gradient))

    def sum(self, x: Tensor) -> Tensor:
        """Add up a tensor of all processes."""
        return x if self.count == 1 else _Sum.apply(x)


ALONE = Processes()


def join(*, on_cpu: bool) -> Processes:
    """Join the processes that ``accelerate launch`` started beside this one.

    Raises: SettingError: accelerate is not installed
    """
    try:
        from accelerate import PartialState  # noqa: PLC0415 - an extra, needed here alone
    except ImportError as error:
        raise SettingError(NEEDS_ACCELERATE) from error
    state = PartialState(cpu=on_cpu)
    return Processes(state.process_index, state.num_processes, str(state.device))


def leave() -> None:
    """Part from the others at the end."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def share_norms(model: nn.Module) -> None:
    """Let every batch-norm of a model take its statistics over the batches of all processes.

    In place, with the same parameters, buffers and names.
    """
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
                setattr(module, name, _shared(child))


def _shared(norm: Any) -> nn.Module:
    # A kind of what it replaces, so that whoever folds or counts batch-norms knows it.
    kind = type(f"Shared{type(norm).__name__}", (SharedStatistics, type(norm)), {})
    twin = kind(norm.num_features, eps=norm.eps, momentum=norm.momentum, device="meta")
    twin.weight, twin.bias = norm.weight, norm.bias
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        setattr(twin, name, getattr(norm, name))
    return twin.train(norm.training)


class SharedStatistics(nn.Module):
    """Makes a batch-norm's training pass that of the whole batch; PyTorch's own needs a GPU."""

    eps: float
    momentum: float
    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def forward(self, x: Float[Tensor, "B C *space"]) -> Float[Tensor, "B C *space"]:
        if not self.training:
            return super().forward(x)
        along, aside = [0, *range(2, x.dim())], (1, -1) + (1,) * (x.dim() - 2)
        found = x.float()
        here = found.new_full((1,), x.numel() / x.shape[1])
        total = torch.cat([found.sum(along), here])
        sums = _Sum.apply(total)
        count = sums[-1].detach()
        mean = sums[:-1] / count
        centred = found - mean.view(aside)
        variance = _Sum.apply(centred.square().sum(along)) / count
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centred * scale.view(aside) + self.bias.view(aside)).to(x.dtype)


class _Sum(torch.autograd.Function):
    """Add up over processes; the gradient of the sum of all losses is added up likewise."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        summed = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(summed)
        return summed

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _Sum.apply(gradient)


def check_share(images: int, processes: Processes) -> None:
    """Raises: SettingError: a batch is too small for every process to get an image"""
    if images < processes.count:
        raise SettingError(
            f"batches of {images} images cannot be shared by {processes.count} processes; choose a "
            "larger batch size or fewer processes"
        )
