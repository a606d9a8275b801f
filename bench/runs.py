"""What a sweep's networks said to the test images: one small file a network, kept with results.

From these, figures over seeds can be made again, and seeds be added, without all checkpoints, which
are too large to be kept here. A file tells of one run: its card, the answers at all angles,
and the area under the curve, upright, for every bootstrap sample.
"""

import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from bench.harness import RESULTS_DIR
from sre.checkpoints import CheckpointCard
from sre.errors import CheckpointError, SettingError
from sre.studies.sweep import Arm, SweepRun
from sre.whole import replacing

RUNS_DIR = RESULTS_DIR / "runs"


@dataclass(frozen=True, eq=False)
class Said:
    """What one network, or its average over turns, said."""

    card: CheckpointCard
    decided: np.ndarray  # (angles, N) classes, of multi-label sets (angles, N, K) zeros and ones
    areas: np.ndarray  # (samples,): upright, one class against the rest, mean over the classes


def file_of(run: SweepRun, arm: Arm, folder: Path) -> Path:
    """Name the file of an arm's run; an average has one of its own beside its network's."""
    return folder / f"{run.dataset}-{arm.name}-w{run.width}-s{run.config.seed}.safetensors"


def write_said(said: Said, path: Path) -> None:
    """Write one network's file, whole or not at all.

    Raises: OSError: the folder cannot be made or written to
    """
    decided = said.decided.astype(np.uint8)
    tensors = {"decided": pack(decided), "shape": np.array(decided.shape), "areas": said.areas}
    save_tensors(tensors, path, said.card.to_metadata())


def pack(values: np.ndarray) -> np.ndarray:
    """Compress an array into bytes: what stays the same over the angles takes little room so."""
    return np.frombuffer(zlib.compress(values.tobytes(), 9), np.uint8)


def unpack(packed: np.ndarray, dtype: type[np.generic], shape: np.ndarray) -> np.ndarray:
    """Undo ``pack``, for which kind and shape are needed.

    Raises: zlib.error, ValueError: these are not such bytes
    """
    return np.frombuffer(zlib.decompress(packed.tobytes()), dtype).reshape(shape)


def save_tensors(tensors: dict[str, np.ndarray], path: Path, metadata: dict[str, str]) -> None:
    """Write a safetensors file, whole or not at all, that everyone may read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
        save_file(tensors, part, metadata=metadata)
        part.chmod(0o644)  # it is made so that only its owner reads it


def read_said(path: Path) -> Said:
    """Read one network's file.

    Raises: SettingError: it is damaged
    """
    try:
        with safe_open(path, framework="np") as file:
            card = CheckpointCard.from_metadata(file.metadata() or {})
            found = {name: file.get_tensor(name) for name in ("decided", "shape", "areas")}
        decided = unpack(found["decided"], np.uint8, found["shape"])
        return Said(card, decided, found["areas"])
    except (OSError, ValueError, SafetensorError, zlib.error, CheckpointError) as error:
        raise SettingError(
            f"{path.name} is damaged; delete it and run bench.accuracy where its checkpoint is"
        ) from error


def find_said(run: SweepRun, arm: Arm, folder: Path) -> Said | None:
    """Find what a run said, if it is known and the run had the settings that are asked for.

    Raises: SettingError: its file is damaged
    """
    path = file_of(run, arm, folder)
    if not path.is_file():
        return None
    said = read_said(path)
    return said if said.card.fingerprint == run.fingerprint(said.card.dataset_md5) else None
