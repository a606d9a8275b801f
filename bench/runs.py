"""What a sweep's networks said to the test images: one small file a network, kept with results.

From these, figures over seeds can be made again, and seeds be added, without all checkpoints, which
are too large to be kept here. A file tells of one run: its card, the answers at all angles,
and the area under the curve, upright, for every bootstrap sample.
"""

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

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
    return folder / f"{run.dataset}-{arm.name}-w{run.width}-s{run.config.seed}.npz"


def write_said(said: Said, path: Path) -> None:
    """Write one network's file, whole or not at all.

    Raises: OSError: the folder cannot be made or written to
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    card = np.array(json.dumps(said.card.to_metadata()))
    with replacing(path) as part, part.open("wb") as file:
        np.savez_compressed(
            file,
            allow_pickle=False,
            card=card,
            decided=said.decided.astype(np.uint8),
            areas=said.areas,
        )
        part.chmod(0o644)  # it is made so that only its owner reads it


def read_said(path: Path) -> Said:
    """Read one network's file.

    Raises: SettingError: it is damaged
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as found:
            card = CheckpointCard.from_metadata(json.loads(str(found["card"])))
            return Said(card, found["decided"], found["areas"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, CheckpointError) as error:
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
