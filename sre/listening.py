"""Hearing every layer of a network at work, by hooks that are gone afterwards in any case."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

# Called as hear(call, path, module, values): the call's name, with "#2" for the second; the
# module's, as in named_modules; and what it gave, or was given.
Hear = Callable[[str, str, nn.Module, object], None]
WHOLE = "(output)"  # the call of the network itself, which has no name


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Set the model to eval mode and drop gradients; then each of its modules is as it was.

    >>> model = nn.Linear(2, 2)
    >>> with evaluating(model):
    ...     model.training, model(torch.zeros(1, 2)).requires_grad
    (False, False)
    >>> model.training
    True
    """
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:  # each its own: some networks train with frozen parts
            module.training = training


@contextmanager
def listening(model: nn.Module, hear: Hear, *, entering: bool = False) -> Iterator[None]:
    """Hear of every call in order of completion, with its output; on entering it, its arguments.

    Sequences and identities, which do nothing of their own, are passed over.

    >>> model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    >>> with listening(model, lambda call, path, module, values: print(call)):
    ...     y = model(torch.zeros(1, 2))
    0
    1
    (output)
    """
    calls: Counter[str] = Counter()
    handles = []
    try:
        for path, module in model.named_modules():
            if path == "" or _acts(module):
                add = module.register_forward_pre_hook if entering else module.register_forward_hook
                handles.append(add(partial(_tell, hear, calls, path, entering), with_kwargs=True))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _tell(
    hear: Hear, calls: Counter[str], path: str, entering: bool, module: nn.Module, *values: object
) -> None:
    # What a hook is called with: the arguments, by place and by name, then the output.
    calls[path] += 1
    number = f"#{calls[path]}" if calls[path] > 1 else ""
    hear((path or WHOLE) + number, path, module, values if entering else values[-1])


def _acts(module: nn.Module) -> bool:
    is_sequence = type(module).forward is nn.Sequential.forward
    return not is_sequence and not isinstance(module, nn.Identity)


def named_tensors(name: str, values: object) -> dict[str, Tensor]:
    """Find the tensors of real numbers in what a module gave; "[1]" names the second of several.

    >>> list(named_tensors("lstm", (torch.zeros(1), [torch.zeros(1), None])))
    ['lstm[0]', 'lstm[1]']
    """
    found = list(_tensors(values))
    if len(found) == 1:
        return {name: found[0]}
    return {f"{name}[{i}]": tensor for i, tensor in enumerate(found)}


def _tensors(values: object) -> Iterator[Tensor]:
    if isinstance(values, Tensor):
        if values.is_floating_point():
            yield values
    elif isinstance(values, Mapping | tuple | list):
        for one in values.values() if isinstance(values, Mapping) else values:
            yield from _tensors(one)
