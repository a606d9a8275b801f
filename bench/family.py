"""One layer of each kind, side by side: python -m bench.family.

64 channels in and out, 32 x 32 px: learned numbers, multiply-adds of an image, time of a batch,
and how far each strays when its input turns. Of the cyclic groups of e2cnn (C8: eight turns of 45
degrees) the layer from images to fields of its group, whose answer is pooled over the group, so
that like is compared with like; it is left out where e2cnn is not installed (pip install
e2cnn==0.2.3). Errors are relative L2 norms inside the disc, bilinear, of random smooth maps,
beside what turning there and back alone makes.
"""

import argparse
import importlib
import importlib.util
import json
import sys
import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from bench.harness import circumstances, interleave, spread, write_results
from sre.gmr import GMRConv2d
from sre.inspection import example_input
from sre.layers import SREConv2d
from sre.models import count_multiply_adds, count_parameters
from sre.symmetry import disc_mask, grid_action, relative_error, rotate

CHANNELS, SIDE, BATCH, SEEDS = 64, 32, 36, 5
ANGLES_DEG = (30.0, 45.0)
TITLES = {
    "plain3": "nn.Conv2d, 3x3",
    "plain9": "nn.Conv2d, 9x9",
    "sre": "SREConv2d, 9x9",
    "gmr": "GMRConv2d, 9x9",
    "authors_sre": "sre-conv 1.0.2, 9x9",
    "authors_gmr": "GMR-Conv 1.0.3, 9x9",
    "e2cnn": "e2cnn 0.2.3, C8, 9x9",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write bench/results/family.json."""
    parser = argparse.ArgumentParser(prog="python -m bench.family", description=__doc__)
    parser.add_argument("--rounds", type=int, default=9, help="timed rounds of each layer")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    layers = {name: make() for name, make in _MAKERS.items() if is_installed(name)}
    x = torch.randn(BATCH, CHANNELS, SIDE, SIDE).contiguous(memory_format=torch.channels_last)

    def run(layer: nn.Module) -> None:
        with torch.inference_mode():
            layer(x)

    timed = interleave(
        {name: lambda i, layer=layer: run(layer) for name, layer in layers.items()},
        rounds=args.rounds,
    )
    rows = []
    for name, layer in layers.items():
        rows.append(
            {
                "name": name,
                "title": TITLES[name],
                "parameters": count_parameters(layer),
                "multiply_adds": count_multiply_adds(layer, in_channels=CHANNELS, side=SIDE),
                "seconds": spread(timed[name]),
                "errors": errors(name),
            }
        )
        print(json.dumps(rows[-1]))
    results = {
        "made_by": "python -m bench.family", **circumstances(), "channels": CHANNELS, "side": SIDE,
        "batch": BATCH, "seeds": SEEDS, "rows": rows, "interpolation": interpolation(),
    }  # fmt: skip
    print(f"wrote {write_results('family', results)}")
    return 0


def is_installed(name: str) -> bool:
    """Tell whether a layer's package is there."""
    package = {"authors_sre": "SRE_Conv", "authors_gmr": "GMR_Conv", "e2cnn": "e2cnn"}.get(name)
    return package is None or importlib.util.find_spec(package) is not None


def errors(name: str) -> dict[str, dict[str, float]]:
    """Turn the input of layers with fresh weights: a quarter, mirrored, and by other angles."""
    actions: dict[str, Callable[[Tensor], Tensor]] = {
        "quarter turn": grid_action(quarter_turns=1),
        "mirror": grid_action(mirror=True),
    }
    for angle in ANGLES_DEG:
        actions[f"{angle:g} degrees"] = lambda x, angle=angle: rotate(x, angle_deg=angle)
    found: dict[str, list[float]] = {label: [] for label in actions}
    mask = disc_mask(SIDE, SIDE)
    for seed in range(SEEDS):
        torch.manual_seed(seed)
        layer = _MAKERS[name]()
        x = example_input(in_channels=CHANNELS, side=SIDE, seed=seed) * mask
        with torch.inference_mode():
            before = layer(x)
            for label, action in actions.items():
                after = layer(action(x) * mask)
                found[label].append(float(relative_error(after, action(before), _inner())))
    return {label: spread(values) for label, values in found.items()}


def interpolation() -> dict[str, dict[str, float]]:
    """What turning there and back alone costs these maps."""
    found = {}
    for angle in ANGLES_DEG:
        values = []
        for seed in range(SEEDS):
            x = example_input(in_channels=CHANNELS, side=SIDE, seed=seed) * disc_mask(SIDE, SIDE)
            back = rotate(rotate(x, angle_deg=angle), angle_deg=-angle)
            values.append(float(relative_error(back, x, _inner())))
        found[f"{angle:g} degrees"] = spread(values)
    return found


def _inner() -> Tensor:
    # Half a kernel away from the rim, where padding and corners have no say.
    inner = disc_mask(SIDE - 8, SIDE - 8)
    return nn.functional.pad(inner, (4, 4, 4, 4))


class _Cyclic(nn.Module):
    """A layer of e2cnn between plain tensors: images in, its group's fields, pooled, out."""

    def __init__(self) -> None:
        super().__init__()
        gspaces = importlib.import_module("e2cnn.gspaces")
        self.fields = importlib.import_module("e2cnn.nn")
        group = gspaces.Rot2dOnR2(N=8)
        self.given = self.fields.FieldType(group, CHANNELS * [group.trivial_repr])
        made = self.fields.FieldType(group, CHANNELS // 8 * [group.regular_repr])
        self.layer = self.fields.R2Conv(self.given, made, kernel_size=9, padding=4, bias=False)
        self.pool = self.fields.GroupPooling(made)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.layer(self.fields.GeometricTensor(x, self.given))).tensor


def _cyclic() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # e2cnn is of 2021 and uses what PyTorch has renamed
        return _Cyclic().eval()


def _authors(package: str, layer: str) -> nn.Module:
    kind = getattr(importlib.import_module(package), layer)
    return kind(CHANNELS, CHANNELS, 9, padding=4, bias=False).eval()


def _same(kind: Callable[..., nn.Module], kernel_size: int) -> nn.Module:
    return kind(CHANNELS, CHANNELS, kernel_size, padding=kernel_size // 2, bias=False).eval()


_MAKERS: dict[str, Callable[[], nn.Module]] = {
    "plain3": lambda: _same(nn.Conv2d, 3),
    "plain9": lambda: _same(nn.Conv2d, 9),
    "sre": lambda: _same(SREConv2d, 9),
    "gmr": lambda: _same(GMRConv2d, 9),
    "authors_sre": lambda: _authors("SRE_Conv", "SRE_Conv2d"),
    "authors_gmr": lambda: _authors("GMR_Conv", "GMR_Conv2d"),
    "e2cnn": _cyclic,
}


if __name__ == "__main__":
    sys.exit(main())
