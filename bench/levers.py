"""What else could move the recipe? One thing changed at a time, asked of validation images alone.

Each lever changes the recipe of bench/recipe.toml in one place; everything else, data, schedule,
seed and augmentation, is as there, and so the recipe's own figures are those of its checkpoints.
Levers that the library has no setting for are built here, and compute with dense kernels. Runs of
an earlier file that are not in the folder, made on another machine, stay as they were.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from torch import Tensor, nn

from bench.harness import RESULTS_DIR, ROOT, circumstances, write_results
from bench.recipe import FIGURES
from sre.checkpoints import load_card
from sre.commands.common import add_data_dir
from sre.data.split import Split
from sre.data.store import load_split
from sre.data.table import find_dataset
from sre.errors import SREError
from sre.evaluation import FEW_ANGLES_DEG, evaluate_angles, summarise
from sre.home import DATA, SWEEP
from sre.layers import RadialConv
from sre.models import build_model, count_multiply_adds, count_parameters
from sre.protocols import find_protocol, soft_disc
from sre.resnet import STAGES, ResNet
from sre.settings import TrainConfig
from sre.studies.sweep import Arm, Sweep, SweepRun
from sre.studies.sweep_file import read_sweep
from sre.training import EpochDone, train
from sre.whole import replacing

SETS = ("breastmnist", "retinamnist", "digits", "pneumoniamnist")
RECIPE, RIVAL = "sre-small", "plain-fast-rotated"
WIDTH = 16  # of all, as in bench/results/recipe-w16.json


@dataclass(frozen=True, slots=True)
class Lever:
    """One change: of the arm, of its settings, or of the network that was built."""

    title: str
    of: str = RECIPE  # or the rival: what is granted to SRE is granted to the CNN
    arm: Callable[[Arm], Arm] = lambda arm: arm
    config: Callable[[TrainConfig], TrainConfig] = lambda config: config
    network: Callable[[nn.Module], None] = lambda network: None


def fade_bands(network: nn.Module) -> None:
    """Let each band rise and fall linearly with the distance from the centre, corners included."""
    for layer in radial_layers(network):
        distance = distances(layer.kernel_size[0])
        hats = [(1 - (distance - band).abs()).clamp(min=0) for band in range(layer.bands)]
        layer.masks, layer.dense = torch.stack(hats), True


def split_bands(network: nn.Module) -> None:
    """Give each distance from the centre a weight of its own, the corners none as before."""
    for layer in radial_layers(network):
        side = layer.kernel_size[0]
        distance = distances(side)
        found = distance[distance < side / 2].unique()
        layer.masks, layer.dense = torch.stack([distance == one for one in found]).float(), True
        spread = layer.weight.detach().std()
        layer._add_weight(len(found), device=None, dtype=None)
        nn.init.normal_(layer.weight, std=float(spread))


def mask_stages(network: nn.Module) -> None:
    """Mask the maps of every stage to the inscribed disc."""
    for stage in stages(network):
        stage.add_module("disc", Disc())


def radial_layers(network: nn.Module) -> list[RadialConv]:
    return [module for module in network.modules() if isinstance(module, RadialConv)]


def stages(network: nn.Module) -> list[nn.Module]:
    return [getattr(network, name) for name in STAGES]


def distances(kernel_size: int) -> Tensor:
    """Distance of each pixel of a kernel from its centre, in pixels."""
    offset = torch.arange(kernel_size) - kernel_size // 2
    return torch.hypot(offset[:, None].float(), offset[None, :].float())


class Disc(nn.Module):
    """Mask maps to the inscribed disc, as the protocol masks images."""

    def forward(self, x: Tensor) -> Tensor:
        return x * soft_disc(x.shape[-1]).to(x)


LEVERS = {
    "bands-fade": Lever("bands that fade into each other", network=fade_bands),
    "bands-split": Lever("a weight for every distance", network=split_bands),
    "mask-stages": Lever("every stage masked to the disc", network=mask_stages),
    "blur-pools": Lever("anti-aliased pools", arm=lambda a: replace(a, blur_pools=True)),
    "width-28": Lever("width 28, as many multiply-adds", arm=lambda a: replace(a, width=28)),
    "kernels-3": Lever("kernels 3, 3, 3, 3", arm=lambda a: replace(a, kernel_sizes=(3, 3, 3, 3))),
    "kernels-7": Lever("kernels 7, 7, 5, 5", arm=lambda a: replace(a, kernel_sizes=(7, 7, 5, 5))),
    "epochs-2": Lever("twice the epochs", config=lambda c: replace(c, epochs=2 * c.epochs)),
    "epochs-2-rival": Lever(
        "CNN, trained turned, twice the epochs",
        of=RIVAL,
        config=lambda c: replace(c, epochs=2 * c.epochs),
    ),
    "fine-blur": Lever(
        "images of 42 px and anti-aliased pools",
        arm=lambda a: replace(a, blur_pools=True),
        config=lambda c: replace(c, side_px=42),
    ),
    "fine-blur-19": Lever(
        "images of 42 px, anti-aliased pools and width 19, as many multiply-adds as the CNN",
        arm=lambda a: replace(a, blur_pools=True, width=19),
        config=lambda c: replace(c, side_px=42),
    ),
}

_BASES = (RECIPE, RIVAL)

# Levers that are arms of the sweep by themselves: their checkpoints are there.
SWEPT = {"sre-fine": "images of 42 px"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Train what is not there yet, and write bench/results/levers.json of all that is."""
    parser = argparse.ArgumentParser(prog="python -m bench.levers", description=__doc__)
    parser.add_argument("--folder", type=Path, default=SWEEP, help="of the sweeps' checkpoints")
    add_data_dir(parser, os.environ.get("SRE_DATA_DIR") or DATA)
    parser.add_argument("--only", nargs="*", default=list(LEVERS), choices=list(LEVERS))
    parser.add_argument("--seeds", type=int, nargs="*", default=[1])
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    sweep, runs = read_sweep(ROOT / "bench" / "recipe.toml", width=WIDTH), args.folder / "levers"
    runs.mkdir(parents=True, exist_ok=True)
    for seed in args.seeds:
        for name in args.only:
            for dataset in SETS:
                lever = LEVERS[name]
                run = sweep.run_of(dataset, lever.arm(sweep.arm(lever.of)), seed)
                path = runs / f"{dataset}-{name}-s{seed}.json"
                run_once(path, run, lever, args.data_dir)
    path = RESULTS_DIR / "levers.json"
    earlier = json.loads(path.read_text("utf-8"))["datasets"] if path.is_file() else {}
    results = circumstances() | {"split": "validation"} | collect(sweep, args.folder, earlier)
    print(f"wrote {write_results('levers', results)}")
    return 0


def run_once(path: Path, run: SweepRun, lever: Lever, data_dir: Path) -> None:
    """Train and evaluate one network, unless that is done or another process is at it."""
    try:
        with FileLock(path.with_suffix(".lock"), timeout=0):
            if path.exists():
                return
            parts = (load_split(run.dataset, name, data_dir=data_dir) for name in ("train", "val"))
            found = measure(run, lever, *parts) | {"circumstances": circumstances()}
            with replacing(path) as part:
                part.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    except Timeout:
        return
    print(f"{path.stem}: mean {found['accuracy_mean']:.3f}, consistency {found['consistency']:.3f}")


def measure(run: SweepRun, lever: Lever, train_split: Split, val_split: Split) -> dict[str, Any]:
    """Train one network as the sweeps do, and tell how it does on validation images, turned."""
    entry, config = find_dataset(run.dataset), lever.config(run.config)
    torch.manual_seed(config.seed)
    network = build_model(
        run.model,
        in_channels=entry.channels,
        num_classes=len(entry.classes),
        width=run.width,
        kernel_sizes=run.kernel_sizes,
        blur_pools=run.blur_pools,
    )
    assert isinstance(network, ResNet)  # all classifiers are
    lever.network(network)
    epochs = [
        event
        for event in train(
            network, train_split, val_split, config=config, is_multi_label=entry.is_multi_label
        )
        if isinstance(event, EpochDone)
    ]
    kept = {name: _as_kept(value) for name, value in network.state_dict().items()}
    network.load_state_dict(kept)
    done = evaluate_angles(
        network.fused(),
        val_split.images,
        val_split.labels,
        find_protocol(config.protocol),
        side_px=config.side_px,
        is_multi_label=entry.is_multi_label,
        angles_deg=FEW_ANGLES_DEG,
    )
    figures = summarise(list(done))
    return {
        "parameters": count_parameters(network),
        "multiply_adds": count_multiply_adds(
            network, in_channels=entry.channels, side=config.side_px
        ),
        "images": figures["images"],
        "seconds": round(epochs[-1].seconds, 1),
        **{name: figures[name] for name in FIGURES},
    }


def _as_kept(value: Tensor) -> Tensor:
    # As a checkpoint keeps weights; it spares the statistics of batch-norm, which are rounded here.
    return value.half().float() if value.is_floating_point() else value


def collect(sweep: Sweep, folder: Path, earlier: Mapping[str, Any]) -> dict[str, Any]:
    """Gather the runs that are done: by data set, the recipe, its rival and each lever by seed.

    Args: earlier: such runs by data set, for what is not in the folder
    """
    datasets: dict[str, Any] = {}
    for dataset in SETS:
        of_set: dict[str, dict[str, Any]] = {
            name: dict(runs) for name, runs in earlier.get(dataset, {}).items()
        }
        for seed in sweep.seeds:
            for arm in (RECIPE, RIVAL, *SWEPT):
                path = folder / sweep.run_of(dataset, sweep.arm(arm), seed).file_name
                if path.is_file() and (card := load_card(path)).validation:
                    figures = {name: card.validation[name] for name in FIGURES}
                    counts = {"parameters": card.parameters, "multiply_adds": card.multiply_adds}
                    of_set.setdefault(arm, {})[str(seed)] = counts | figures
            for name in LEVERS:
                path = folder / "levers" / f"{dataset}-{name}-s{seed}.json"
                if path.is_file():
                    of_set.setdefault(name, {})[str(seed)] = json.loads(path.read_text("utf-8"))
        datasets[dataset] = of_set
    titles = {of: {n: one.title for n, one in LEVERS.items() if one.of == of} for of in _BASES}
    return {
        "recipe": RECIPE,
        "rival": RIVAL,
        "levers": SWEPT | titles[RECIPE],
        "rivals": titles[RIVAL],
        "datasets": datasets,
    }


if __name__ == "__main__":
    try:
        sys.exit(main())
    except SREError as error:
        sys.exit(f"error: {error}")
