"""Does it hold for volumes, too? Networks for AdrenalMNIST3D, upright and turned about each axis.

    python -m bench.volumes

An R3D-18 with kernels of shells, an ordinary one, and the ordinary one turned in training, by all
turns in space alike: the same volumes, schedule, seed, scalings and shifts. The epoch is the one of
the best area under the curve of the validation volumes as they are: a class has three in four of
them, which accuracy would be content with. Test volumes are turned by steps of 30 degrees about
each of the three axes, as the authors do, but trilinearly, with black fill and everything outside
the inscribed ball black. "Turned" are those of them that no symmetry of the grid gives, as at
quarter turns a radial network cannot but stay. Intervals and the test of a difference are those of
bench.accuracy.

What each network said is kept in bench/results/runs/volumes, so that a run is made once, and
further seeds can be added: --seeds 1 2 3. Other settings are told and not written down.
"""

import argparse
import dataclasses
import hashlib
import json
import math
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from safetensors import safe_open
from torch import Tensor, nn
from tqdm import tqdm

from bench.harness import circumstances, write_results
from bench.runs import RUNS_DIR, pack, save_tensors, unpack
from sre.commands.common import add_data_dir
from sre.data.split import Split
from sre.data.store import file_md5, load_split
from sre.data.table import find_dataset
from sre.errors import SREError
from sre.evaluation import auc
from sre.gmr import parameter_groups
from sre.home import DATA
from sre.models import build_model, count_multiply_adds, count_parameters, find_model
from sre.statistics import (
    areas_under_curve,
    balanced_accuracies,
    bootstrap_weights,
    interval,
    over_seeds,
    paired_p_value,
)
from sre.symmetry import disc_mask, rotate_volume
from sre.training import learning_rate_factor

DATASET = "adrenalmnist3d"
STEP_DEG = 30
# (axis, angle): upright, then all others about each axis.
POSES = ((0, 0), *((axis, angle) for axis in range(3) for angle in range(STEP_DEG, 360, STEP_DEG)))
TURNED = [place for place, (_, angle) in enumerate(POSES) if angle % 90]  # off the grid
CHECKED = 64  # volumes, on which quarter turns must change no answer for these to be left out
ANSWERED_TOGETHER = 32
RESAMPLES, AREA_RESAMPLES = 1000, 200  # areas take longer


@dataclass(frozen=True, slots=True)
class Arm:
    """A network that takes part."""

    title: str
    model: str
    rotate: bool = False


ARMS = {
    "sre": Arm("SRE", "sre_r3d_18"),
    "plain": Arm("CNN", "r3d_18"),
    "plain-rotated": Arm("CNN, trained turned", "r3d_18", rotate=True),
}
PAIRS = (("sre", "plain"), ("sre", "plain-rotated"))


@dataclass(frozen=True, slots=True)
class Settings:
    """Of a run; the same for all arms."""

    width: int = 8
    epochs: int = 12
    batch_size: int = 16
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    warmup: float = 0.1  # share of the steps
    scale: float = 0.1
    shift: float = 0.1


@dataclass(frozen=True, eq=False)
class Said:
    """What one network said, and what it took."""

    facts: Mapping[str, Any]
    scores: np.ndarray  # (poses, N): the probability of the second of two classes

    @property
    def decided(self) -> np.ndarray:
        """Classes, (poses, N)."""
        return (self.scores > 0.5).astype(int)


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the runs that are missing, and write bench/results/volumes.json."""
    parser = argparse.ArgumentParser(prog="python -m bench.volumes", description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=Path, default=RUNS_DIR / "volumes")
    add_data_dir(parser, os.environ.get("SRE_DATA_DIR") or DATA)
    for field in dataclasses.fields(Settings):
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=type(field.default))
    args = parser.parse_args(arguments)
    changed = {f.name: getattr(args, f.name) for f in dataclasses.fields(Settings)}
    settings = Settings(**{name: value for name, value in changed.items() if value is not None})
    torch.set_num_threads(args.threads)
    try:
        splits = {
            s: load_split(DATASET, s, data_dir=args.data_dir) for s in ("train", "val", "test")
        }
    except SREError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    md5 = file_md5(find_dataset(DATASET), data_dir=args.data_dir) or ""
    for name in args.arms:
        for seed in args.seeds:
            path = args.runs / f"{DATASET}-{name}-{name_of(settings)}-s{seed}.safetensors"
            if read_said(path, facts_before(ARMS[name], settings, md5)) is None:
                print(path.stem)
                write_said(make_run(ARMS[name], seed, settings, splits, md5), path)
    known = {name: dict(_all_said(args.runs, name, settings, md5)) for name in ARMS}
    results = circumstances() | summarise(known, splits["test"].labels, settings)
    if settings == Settings():
        print(f"wrote {write_results('volumes', results)}")
    else:
        print(json.dumps(results, indent=1))
    return 0


def name_of(settings: Settings) -> str:
    """Name settings for files: the width, and what tells all others apart."""
    told = json.dumps(asdict(settings), sort_keys=True)
    return f"w{settings.width}-{hashlib.sha256(told.encode()).hexdigest()[:8]}"


def facts_before(arm: Arm, settings: Settings, md5: str) -> dict[str, Any]:
    """What is known of a run before it is made; one that differs in this is another."""
    return {
        "model": arm.model,
        "rotate": arm.rotate,
        "kernel_sizes": list(find_model(arm.model).kernel_sizes),
        "settings": asdict(settings),
        "poses": [list(pose) for pose in POSES],
        "dataset_md5": md5,
    }


def _all_said(runs: Path, name: str, settings: Settings, md5: str) -> Iterator[tuple[int, Said]]:
    for path in sorted(runs.glob(f"{DATASET}-{name}-{name_of(settings)}-s*.safetensors")):
        said = read_said(path, facts_before(ARMS[name], settings, md5))
        if said is not None:
            yield int(said.facts["seed"]), said


def write_said(said: Said, path: Path) -> None:
    """Keep what a network said, whole or not at all."""
    tensors = {
        "scores": pack(said.scores.astype(np.float16)), "shape": np.array(said.scores.shape)
    }  # fmt: skip
    save_tensors(tensors, path, {"run": json.dumps(said.facts)})


def read_said(path: Path, facts_asked: Mapping[str, Any]) -> Said | None:
    """Read a run of which these facts hold; None if there is none."""
    if not path.is_file():
        return None
    with safe_open(path, framework="np") as file:
        facts = json.loads(file.metadata()["run"])
        packed, shape = file.get_tensor("scores"), file.get_tensor("shape")
    if any(facts.get(name) != fact for name, fact in facts_asked.items()):
        return None
    return Said(facts, unpack(packed, np.float16, shape).astype(float))


def make_run(
    arm: Arm, seed: int, settings: Settings, splits: Mapping[str, Split], md5: str
) -> Said:
    """Train a network, take its best epoch, and ask it about the test volumes in all poses."""
    entry, began = find_dataset(DATASET), time.monotonic()
    torch.manual_seed(seed)
    model = build_model(
        arm.model, in_channels=1, num_classes=len(entry.classes), width=settings.width
    )
    side, val = splits["test"].images.shape[-1], splits["val"]
    best, best_epoch, best_state = (-1.0, -math.inf), 0, {}
    epochs = train(model, arm, seed, settings, splits["train"])
    for epoch in tqdm(epochs, total=settings.epochs):
        logits = answer(model.eval(), seen(val.images))
        loss = F.cross_entropy(logits, torch.tensor(val.labels)).item()
        rank = auc(logits.softmax(1).numpy(), val.labels) or 0.0, -loss
        if rank > best:
            best, best_epoch = rank, epoch
            best_state = {name: value.clone() for name, value in model.state_dict().items()}
    seconds = time.monotonic() - began
    model.load_state_dict(best_state)
    scores, is_exact = ask(model.eval(), splits["test"].images)
    machine = circumstances()
    facts = {
        **facts_before(arm, settings, md5),
        "seed": seed,
        "parameters": count_parameters(model),
        "multiply_adds": count_multiply_adds(model, in_channels=1, side=side, dims=3),
        "best_epoch": best_epoch,
        "val_auc": best[0],
        "is_exact": is_exact,
        "seconds": round(seconds, 1),
        "created": datetime.now(UTC).date().isoformat(),
        **{name: machine[name] for name in ("processor", "threads", "load_before")},
        "torch": torch.__version__,
    }
    return Said(facts, scores)


def train(model: nn.Module, arm: Arm, seed: int, settings: Settings, split: Split) -> Iterator[int]:
    """Learn, and give the number of each epoch that is over."""
    generator = torch.Generator().manual_seed(seed)
    groups = parameter_groups(model, weight_decay=settings.weight_decay, decays_vectors=False)
    optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate)
    labels = torch.tensor(split.labels)
    steps = math.ceil(len(labels) / settings.batch_size)
    for epoch in range(settings.epochs):
        model.train()
        order = torch.randperm(len(labels), generator=generator)
        for step, batch in enumerate(order.tensor_split(steps)):
            factor = learning_rate_factor(
                epoch * steps + step, steps * settings.epochs, settings.warmup
            )
            for group in optimizer.param_groups:
                group["lr"] = settings.learning_rate * factor
            volumes = as_shares(split.images[batch.numpy()])
            moved = move(volumes, settings, generator, rotate=arm.rotate)
            optimizer.zero_grad()
            F.cross_entropy(model(normalise(moved)), labels[batch]).backward()
            optimizer.step()
        yield epoch + 1


def as_shares(volumes: np.ndarray) -> Float[Tensor, "B 1 D H W"]:
    """Bring uint8 volumes (B, D, H, W) to 0 .. 1."""
    return torch.tensor(volumes)[:, None].float() / 255


def normalise(volumes: Float[Tensor, "B 1 D H W"]) -> Float[Tensor, "B 1 D H W"]:
    """Black out what lies outside the ball, and bring 0 .. 1 to -1 .. 1."""
    return (volumes * disc_mask(*volumes.shape[2:]) - 0.5) / 0.5


def seen(volumes: np.ndarray, *, axis: int = 0, angle_deg: int = 0) -> Float[Tensor, "B 1 D H W"]:
    """Show volumes as a network sees them, turned about an axis."""
    return normalise(rotate_volume(as_shares(volumes), angle_deg=float(angle_deg), axis=axis))


def move(
    volumes: Float[Tensor, "B 1 D H W"],
    settings: Settings,
    generator: torch.Generator,
    *,
    rotate: bool,
) -> Float[Tensor, "B 1 D H W"]:
    """Scale and shift volumes at random; with ``rotate`` turn them, too, all turns alike likely."""
    count = len(volumes)
    scale = 1 + settings.scale * (2 * torch.rand(count, 1, 1, generator=generator) - 1)
    shift = 2 * settings.shift * (2 * torch.rand(count, 3, 1, generator=generator) - 1)
    drawn = torch.randn(count, 4, generator=generator)  # by all arms, which then see the same rest
    turns = turns_of(drawn) if rotate else torch.eye(3).expand(count, 3, 3)
    grid = F.affine_grid(torch.cat([turns * scale, shift], 2), list(volumes.shape), False)
    return F.grid_sample(volumes, grid, align_corners=False)


def turns_of(quaternions: Float[Tensor, "B 4"]) -> Float[Tensor, "B 3 3"]:
    """Give the turns of quaternions of any length but 0; of normal ones, all are alike likely.

    Reference: Shoemake, Uniform Random Rotations, Graphics Gems III, 1992
    """
    w, x, y, z = F.normalize(quaternions, dim=1).unbind(1)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


@torch.no_grad()
def answer(model: nn.Module, volumes: Float[Tensor, "B 1 D H W"]) -> Float[Tensor, "B K"]:
    """Give the logits of volumes of which there may be many."""
    return torch.cat([model(part) for part in volumes.split(ANSWERED_TOGETHER)])


def ask(model: nn.Module, volumes: np.ndarray) -> tuple[np.ndarray, bool]:
    """Ask about volumes in all poses; where quarter turns change nothing, only below 90 degrees.

    Returns: (poses, N) probabilities of the second class, and whether quarter turns changed no
        logit of the first volumes by 1e-4
    """
    few = volumes[:CHECKED]
    first = answer(model, seen(few))
    is_exact = all(
        torch.allclose(answer(model, seen(few, axis=axis, angle_deg=angle)), first, atol=1e-4)
        for axis in range(3)
        for angle in (90, 180, 270)
    )
    found: dict[tuple[int, int], np.ndarray] = {}
    scores = []
    for axis, angle in POSES:
        pose = (axis, angle % 90) if is_exact else (axis, angle)
        pose = (0, 0) if pose[1] == 0 else pose
        if pose not in found:
            logits = answer(model, seen(volumes, axis=pose[0], angle_deg=pose[1]))
            found[pose] = logits.softmax(1)[:, 1].double().numpy()
        scores.append(found[pose])
    return np.stack(scores), is_exact


def summarise(
    known: Mapping[str, Mapping[int, Said]], labels: np.ndarray, settings: Settings
) -> dict[str, Any]:
    """Give the figures of each arm and pair, over the seeds that are there."""
    weights = bootstrap_weights(len(labels), resamples=RESAMPLES)
    known = {name: runs for name, runs in known.items() if runs}
    seeds = sorted({seed for runs in known.values() for seed in runs})
    pairs = [
        compare(first, second, known, labels, weights)
        for first, second in PAIRS
        if set(known.get(first, ())) & set(known.get(second, ()))
    ]
    return {
        "command": " ".join(["python -m bench.volumes --seeds", *map(str, seeds)]),
        "dataset": DATASET,
        "images": len(labels),
        "largest_class": float(np.bincount(labels).max() / len(labels)),
        "poses": [list(pose) for pose in POSES],
        "turned_poses": len(TURNED),
        "step_deg": STEP_DEG,
        "settings": asdict(settings),
        "arms": {
            name: {"title": ARMS[name].title} | figures_of(runs, labels, weights)
            for name, runs in known.items()
        },
        "pairs": pairs,
    }


def areas_of(said: Said, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Area under the curve of every pose, under the first of the weights: (samples, poses)."""
    few = np.asfortranarray(weights[: 1 + AREA_RESAMPLES])
    return np.stack([areas_under_curve(few, labels == 1, of_pose) for of_pose in said.scores], 1)


def figures_of(runs: Mapping[int, Said], labels: np.ndarray, weights: np.ndarray) -> dict[str, Any]:
    """Give an arm's figures with their intervals, and what its runs were."""
    decided = np.stack([said.decided for said in runs.values()])  # (seeds, poses, N)
    right, same = decided == labels, decided == decided[:, :1]
    accuracy = np.einsum("rn,spn->rsp", weights, right.astype(float))
    stays = np.einsum("rn,spn->rsp", weights, same.astype(float))
    balanced = np.stack([balanced_accuracies(weights, one, labels) for one in right], 1)
    areas = np.stack([areas_of(said, labels, weights) for said in runs.values()], 1)
    samples = {
        "accuracy_at_0": accuracy[:, :, 0],
        "accuracy_turned": accuracy[:, :, TURNED].mean(2),
        "accuracy_worst": accuracy.min(2),
        "balanced_accuracy_turned": balanced[:, :, TURNED].mean(2),
        "consistency": stays[:, :, TURNED].mean(2),
        "auc_at_0": areas[:, :, 0],
        "auc_turned": areas[:, :, TURNED].mean(2),
    }
    facts = [dict(said.facts) for said in runs.values()]
    return {
        "seeds": list(runs),
        "parameters": facts[0]["parameters"],
        "multiply_adds": facts[0]["multiply_adds"],
        **{name: asdict(interval(over_seeds(s))) for name, s in samples.items()},
        "accuracy_by_pose": [round(float(x), 6) for x in accuracy[0].mean(0)],
        "training_s": [fact["seconds"] for fact in facts],
        "runs": facts,
    }


def compare(
    first: str,
    second: str,
    known: Mapping[str, Mapping[int, Said]],
    labels: np.ndarray,
    weights: np.ndarray,
) -> dict[str, Any]:
    """Compare two arms on the seeds that both have, volume by volume."""
    seeds = [seed for seed in known[first] if seed in known[second]]
    both = [(known[first][seed], known[second][seed]) for seed in seeds]
    gap = np.stack([(a.decided == labels) * 1.0 - (b.decided == labels) for a, b in both])
    areas = np.stack(
        [areas_of(a, labels, weights) - areas_of(b, labels, weights) for a, b in both], 1
    )  # (samples, seeds, poses), as gap is (seeds, poses, N)
    found: dict[str, Any] = {"first": first, "second": second, "seeds": seeds}
    for name, difference in (("upright", gap[:, 0]), ("turned", gap[:, TURNED].mean(1))):
        found[name] = asdict(interval(over_seeds(weights @ difference.T)))
        found[f"{name}_p"] = paired_p_value(difference.mean(0))
    found["auc_turned"] = asdict(interval(over_seeds(areas[:, :, TURNED].mean(2))))
    return found


if __name__ == "__main__":
    raise SystemExit(main())
