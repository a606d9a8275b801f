"""Compile a network and say by how much it then differs: python -m tests.compiled MODEL HOW.

In a process of its own, as the shape checks of the other tests cannot be compiled.
"""

import copy
import json
import sys
import warnings

import torch
from torch import Tensor

from sre.resnet import ResNet
from tests.test_resnet import network

WIDTH = 8  # from here on, layers take the band sums


def error(got: Tensor, expected: Tensor) -> float:
    """The largest difference over the largest value."""
    return float((got - expected).detach().abs().amax() / expected.detach().abs().amax())


def exported(model: ResNet, images: Tensor) -> list[float]:
    """For any batch, from Python's bytecode."""
    batch = torch.export.Dim("batch", min=1, max=512)
    program = torch.export.export(
        model.fused(), (images,), dynamic_shapes={"x": {0: batch}}, strict=True
    )
    return [error(program.module()(some), model(some)) for some in (images, images[:2])]


def traced(model: ResNet, images: Tensor) -> list[float]:
    """By running it once."""
    return [error(torch.jit.trace(model.fused(), images)(images[:2]), model(images[:2]))]


def compiled(model: ResNet, images: Tensor, backend: str) -> list[float]:
    """In one graph, with its way back: logits and all gradients."""
    found = []
    for compiles in (False, True):
        each = copy.deepcopy(model).train().requires_grad_(True)
        call = torch.compile(each, fullgraph=True, backend=backend) if compiles else each
        logits = call(images)
        logits.square().mean().backward()
        found.append([logits, *(p.grad for p in each.parameters())])
    return [error(got, expected) for expected, got in zip(*found, strict=True)]


def main(name: str, how: str) -> None:
    """Write the errors as JSON."""
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    model, images = network(name, width=WIDTH), torch.randn(3, 2, 28, 28)
    ways = {"exported": exported, "traced": traced}
    found = ways[how](model, images) if how in ways else compiled(model, images, how)
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
