"""What does a run look like? One that was measured, for a page on which nothing was trained yet."""

import json
from pathlib import Path
from typing import Any

Json = dict[str, Any]
MEASURED = Path(__file__).resolve().parents[2] / "bench" / "results" / "training.json"
MODEL = "sre_resnet18"


def read_example(path: Path = MEASURED) -> Json | None:
    """Read the run of the two-minute preset out of the results of ``python -m bench.training``.

    Returns: the words about it, and the events as a worker writes them; None where there is no such
        file, or another one: a page does without
    """
    try:
        found = json.loads(path.read_bytes())
        run = found["runs"][MODEL]
        if not any(epoch["is_best"] for epoch in run["epochs"]):
            return None
        return {
            "model": MODEL,
            "dataset": found["dataset"],
            "preset": found["preset"],
            "took_s": float(run["took_s"]),
            "date": found["date"],
            "machine": f"{found['processor']}, {found['threads']} threads",
            "made_by": found["made_by"],
            "events": [
                {"kind": "planned", "epochs": run["epochs_planned"]},
                *({"kind": "epoch", **_as_told(epoch)} for epoch in run["epochs"]),
            ],
        }
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _as_told(epoch: Json) -> Json:
    names = ("epoch", "train_loss", "val_loss", "is_best", "seconds")
    return {name: epoch[name] for name in names} | {
        "upright": epoch["val_accuracy"],
        "turned": epoch["val_turned_accuracy"],
    }
