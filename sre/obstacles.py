"""Modules that may not commute with turns, told by their types, settings and parameters."""

from types import MappingProxyType

from torch import nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.utils import _ntuple

from sre.layers import RadialConv
from sre.transposed import RadialConvTranspose

_ADAPTIVE_POOLS = tuple(
    getattr(nn, f"Adaptive{kind}Pool{dims}d") for kind in ("Avg", "Max") for dims in (2, 3)
)
_PADS = tuple(
    getattr(nn, f"{kind}Pad{dims}d")
    for kind in ("Constant", "Reflection", "Replication", "Circular")
    for dims in (1, 2, 3)
)
_DIRECTED = MappingProxyType(
    {
        nn.MultiheadAttention: "attention is exact only if nothing tells tokens where they lie",
        nn.RNNBase: "it reads in one direction",
        nn.PixelShuffle: "it lays channels out as places, which a turn would have to swap",
        nn.PixelUnshuffle: "it makes channels of places, which a turn would have to swap",
        nn.Unfold: "it makes channels of places, which a turn would have to swap",
        nn.Fold: "it lays channels out as places, which a turn would have to swap",
        nn.MaxUnpool1d: "it puts values where indices of the unturned map point",
        nn.MaxUnpool2d: "it puts values where indices of the unturned map point",
        nn.MaxUnpool3d: "it puts values where indices of the unturned map point",
        nn.FractionalMaxPool2d: "its windows are drawn at random",
        nn.FractionalMaxPool3d: "its windows are drawn at random",
        nn.LPPool1d: "a pool of powers, for which there is no adaptive form",
        nn.LPPool2d: "a pool of powers, for which there is no adaptive form",
        nn.LPPool3d: "a pool of powers, for which there is no adaptive form",
    }
)


def is_plain(module: nn.Module) -> bool:
    """Tell whether a module computes as PyTorch's own do, be it of a subclass of theirs."""
    return type(module).forward.__module__.startswith("torch.nn.")


def objection(module: nn.Module) -> str | None:
    """Say why a module may not commute with turns, or None where nothing speaks against it.

    By its type, its settings and the shapes of its own parameters; what a forward does with them
    is not known. An ordinary convolution is passed over, as it is to be replaced.

    >>> objection(nn.AdaptiveAvgPool2d((1, 7)))
    'its sides differ along the axes'
    """
    for kind, why in _DIRECTED.items():
        if isinstance(module, kind):
            return why
    if isinstance(module, _ConvNd):
        return None if is_plain(module) else "a convolution of an unknown kind"
    if isinstance(module, RadialConvTranspose) and any(module.output_padding):
        return "output_padding adds pixels at one edge"
    if isinstance(module, nn.Upsample) and module.mode == "nearest":
        factors = module.scale_factor
        whole = factors is not None and all(float(f).is_integer() for f in _ntuple(1)(factors))
        return None if whole else "nearest pixels lean to one side unless the factor is whole"
    if isinstance(module, _ADAPTIVE_POOLS) and isinstance(module.output_size, tuple):
        return None if len(set(module.output_size)) == 1 else "its sides differ along the axes"
    if isinstance(module, _PADS) and isinstance(module.padding, tuple):
        return None if len(set(module.padding)) == 1 else "it pads edges differently"
    if isinstance(module, nn.Linear | RadialConv):
        return None
    for name, parameter in module.named_parameters(recurse=False):
        if sum(side > 1 for side in parameter.shape) > 1:
            shape = "x".join(map(str, parameter.shape))
            return f"its parameter {name}, {shape}, may differ from place to place"
    return None
