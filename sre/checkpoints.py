"""Checkpoints: a network's state and its card, in one file. Safetensors only, never pickle."""

import hashlib
import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import lru_cache
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch.overrides import TorchFunctionMode

from sre.errors import CheckpointError, SettingError, UnknownNameError
from sre.models import CLASSIFIERS, MAX_SIDE_PX, MIN_SIDE_PX, build_model, find_model
from sre.resnet import ResNet
from sre.whole import replacing

FORMAT = 1


@dataclass(frozen=True, slots=True)
class CheckpointCard:
    """Where a network comes from, and how well it does; written by the run that trained it."""

    dataset: str
    classes: tuple[str, ...]
    is_multi_label: bool
    in_channels: int
    side_px: int
    model: str
    width: int
    kernel_sizes: tuple[int, ...]
    rotates_in_training: bool
    protocol: str  # of the validation and test figures
    parameters: int
    multiply_adds: int  # of one image at side_px, on a CPU
    config: Mapping[str, object]
    command: str
    blur_pools: bool = False
    dataset_md5: str = ""
    split_sizes: Mapping[str, int] = field(default_factory=dict)
    seed: int = 0
    epochs: int = 0  # learned from; config has those planned
    cut_short: bool = False  # the last of them ended early
    best_epoch: int = 0
    seconds: float = 0.0
    device: str = "cpu"
    created: str = ""  # ISO date
    versions: Mapping[str, str] = field(default_factory=dict)
    validation: Mapping[str, float | int | None] = field(default_factory=dict)
    test: Mapping[str, float | int | None] = field(default_factory=dict)

    @property
    def arm(self) -> str:
        """Part in the comparison: "sre", "plain", "augmented"; others are off the page."""
        family = find_model(self.model).family
        if not self.rotates_in_training:
            return family
        return "augmented" if family == "plain" else f"{family}-augmented"

    @property
    def file_name(self) -> str:
        """Name that tells the runs apart that the app compares."""
        turned = "-rotated" if self.rotates_in_training else ""
        return f"{self.dataset}-{self.model}{turned}-w{self.width}.safetensors"

    @property
    def fingerprint(self) -> str:
        """Tell runs apart: equal where data, network, settings and seed are, 16 hex digits."""
        return fingerprint_of(*(getattr(self, name) for name in _TOLD_BY))

    def to_metadata(self) -> dict[str, str]:
        """Give the card as safetensors keeps it."""
        return {"format": str(FORMAT), "card": json.dumps(asdict(self))}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> "CheckpointCard":
        """Read a card back; unknown fields are passed over, as a newer version may add some.

        Raises: CheckpointError: it is no card of ours
        """
        if metadata.get("format") != str(FORMAT):
            given = metadata.get("format", "none")
            raise CheckpointError(
                f"the checkpoint has format {given!r}, this version reads {FORMAT}; train it again"
            )
        try:
            raw = json.loads(metadata["card"])
            known = {f.name: raw[f.name] for f in fields(cls) if f.name in raw}
            for kind in fields(cls):
                if kind.name in known and not _is_of(known[kind.name], kind.type):
                    raise TypeError(f"{kind.name} is no {kind.type}")
            card = cls(
                **known
                | {"classes": tuple(raw["classes"]), "kernel_sizes": tuple(raw["kernel_sizes"])}
            )
            if card.model not in CLASSIFIERS:
                raise ValueError(f"model is {card.model!r}")
            if not MIN_SIDE_PX <= card.side_px <= MAX_SIDE_PX:
                raise ValueError(f"side_px is {card.side_px}")
        except (KeyError, TypeError, ValueError, RecursionError, UnknownNameError) as error:
            raise CheckpointError("the checkpoint's card cannot be read; train it again") from error
        return card


_TOLD_BY = (
    "dataset", "dataset_md5", "model", "width", "kernel_sizes", "side_px", "config", "blur_pools",
)  # fmt: skip


def fingerprint_of(
    dataset: str,
    dataset_md5: str,
    model: str,
    width: int,
    kernel_sizes: Sequence[int],
    side_px: int,
    config: Mapping[str, object],
    blur_pools: bool = False,
) -> str:
    """Give the fingerprint that the card of a run will have, before there is one."""
    # What came later counts where it is used, so that older cards keep their fingerprints.
    config = {name: value for name, value in config.items() if name != "balance" or value}
    told = [dataset, dataset_md5, model, width, kernel_sizes, side_px, config]
    told += ["blur_pools"] if blur_pools else []
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]


def _is_of(value: object, kind: object) -> bool:
    """Tell whether a value out of JSON is of a field's type; no number may be infinite or NaN."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is tuple:
        return isinstance(value, list) and all(_is_of(v, inner[0]) for v in value)
    if origin is Mapping:
        return isinstance(value, dict) and all(_is_of(v, inner[1]) for v in value.values())
    if origin is UnionType:
        return any(_is_of(value, one) for one in inner)
    if kind is float:
        return isinstance(value, int | float) and type(value) is not bool and math.isfinite(value)
    return kind is object or type(value) is kind or (kind is type(None) and value is None)


def check_writable(path: Path) -> None:
    """Try whether ``save_checkpoint`` can write there, before hours are spent on what it saves.

    Raises: CheckpointError: the folder cannot be written to
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
        if path.is_dir():
            raise IsADirectoryError(f"{path.name} is a folder")
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: Exception) -> CheckpointError:
    cause = getattr(error, "strerror", None) or error
    return CheckpointError(
        f"cannot write {path}: {cause}; free some space or choose another folder"
    )


def save_checkpoint(model: ResNet, card: CheckpointCard, path: Path) -> None:
    """Write state and card, weights in half precision, whole or not at all.

    Statistics of batch-norm stay in float32: a small variance would lose its digits.

    Raises: CheckpointError: the folder cannot be written to, or is full
    """
    state = {
        name: value.detach().cpu().contiguous().to(
            torch.float32 if "running" in name else torch.float16
        )
        for name, value in model.state_dict().items()
        if value.is_floating_point()
    }  # fmt: skip
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as part:
            save_file(state, part, metadata=card.to_metadata())
            part.chmod(0o644)  # it is made so that only its owner reads it
    except (OSError, SafetensorError) as error:
        raise _unwritable(path, error) from error


def load_card(path: Path) -> CheckpointCard:
    """Read the card alone, which takes a millisecond.

    Raises: CheckpointError: what is wrong with the file, and the cure
    """
    return _read(path, with_state=False)[0]


def load_checkpoint(path: Path, *, device: str = "cpu") -> tuple[ResNet, CheckpointCard]:
    """Rebuild a network from its file: in float32, in eval mode, with frozen parameters.

    Raises: CheckpointError: what is wrong with the file, and the cure
    """
    card, state = _read(path, with_state=True)
    try:
        # First without taking memory: a small file may claim to be of any size.
        with torch.device("meta"), _Undrawn():
            sketch = build_untrained(card)
    except (SettingError, RuntimeError, TypeError) as error:
        raise CheckpointError(f"{path.name} has an impossible card; train it again") from error
    wanted = {n: v.shape for n, v in sketch.state_dict().items() if v.is_floating_point()}
    given = {n: v.shape for n, v in state.items()}
    if wanted != given:
        clash = sorted(k for k in wanted | given if wanted.get(k) != given.get(k))
        raise CheckpointError(
            f"{path.name} is no {card.model!r} of width {card.width}, see {clash[0]}; "
            "train it again"
        )
    if any(v.dtype not in (torch.float16, torch.float32) for v in state.values()):
        raise CheckpointError(
            f"{path.name} holds other numbers than half or single precision; train it again"
        )
    if not all(bool(v.isfinite().all()) for v in state.values()):
        raise CheckpointError(f"{path.name} holds numbers that are not finite; train it again")
    with _Undrawn():
        model = build_untrained(card)
    model.load_state_dict({n: v.float() for n, v in state.items()}, strict=False)
    return model.to(device).eval().requires_grad_(False), card


class _Undrawn(TorchFunctionMode):
    """Leaves new weights as they are, for the file's to come: random numbers are not touched."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.__name__ in ("normal_", "uniform_", "kaiming_uniform_"):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def build_untrained(card: CheckpointCard) -> ResNet:
    """Build a network of the card's shape, its weights drawn anew.

    Raises: SettingError: the card names no network, or an impossible one
    """
    model = build_model(
        card.model,
        in_channels=card.in_channels,
        num_classes=len(card.classes),
        width=card.width,
        kernel_sizes=card.kernel_sizes,
        blur_pools=card.blur_pools,
    )
    assert isinstance(model, ResNet)  # all classifiers are
    return model


def list_checkpoints(folder: Path) -> dict[Path, CheckpointCard]:
    """Read the cards of all sound checkpoints in a folder, in the order of their names.

    A card is read again only if its file has changed: the page asks for the list with every image.
    """
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            stamp = path.stat()
            found[path] = _card_of(path, stamp.st_mtime_ns, stamp.st_size)
        except (CheckpointError, OSError):
            continue  # loading it by name says what is wrong; a list shows what there is
    return found


@lru_cache(maxsize=256)
def _card_of(path: Path, mtime_ns: int, size: int) -> CheckpointCard:
    return load_card(path)


def _read(path: Path, *, with_state: bool) -> tuple[CheckpointCard, dict[str, torch.Tensor]]:
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        found = ", ".join(sorted(p.name for p in path.parent.glob("*.safetensors"))) or "none"
        raise CheckpointError(f"{path} {what}; checkpoints beside it: {found}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            names = list(file.keys()) if with_state else []
            state = {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path.name} is damaged or no checkpoint; fetch or train it again"
        ) from error
    try:
        return CheckpointCard.from_metadata(metadata), state
    except CheckpointError as error:
        raise CheckpointError(f"{path.name}: {error}") from error
