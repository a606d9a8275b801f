"""How right a classifier is, and whether it stays so as the image turns."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from sre.protocols import Protocol, prepare, present

ANGLES_DEG = tuple(float(a) for a in range(0, 360, 10))
FEW_ANGLES_DEG = tuple(float(a) for a in range(0, 360, 30))


def probabilities(logits: Float[Tensor, "*B K"], *, is_multi_label: bool) -> Float[Tensor, "*B K"]:
    """Turn logits into probabilities: a sigmoid a label, or a softmax over the classes."""
    return logits.sigmoid() if is_multi_label else logits.softmax(-1)


def decide(probability: np.ndarray, *, is_multi_label: bool) -> np.ndarray:
    """Turn probabilities (..., K) into predictions: classes (...), or 0/1 a label (..., K)."""
    return (probability >= 0.5).astype(np.int64) if is_multi_label else probability.argmax(-1)


def consistency(predictions: np.ndarray) -> float:
    """Share of predictions over angles (angles, ...) that equal the one at the first angle."""
    return float((predictions == predictions[:1]).mean())


def auc(probability: np.ndarray, labels: np.ndarray) -> float | None:
    """Area under the ROC curve, one class against the rest, mean over classes that occur both ways.

    Args: probability (N, K); labels (N,) class indices or (N, K) zeros and ones
    Returns: None where no class occurs both ways
    """
    truth = labels if labels.ndim == 2 else np.eye(probability.shape[1], dtype=int)[labels]
    scored = [
        _area_under_curve(truth[:, k] == 1, probability[:, k])
        for k in range(truth.shape[1])
        if 0 < truth[:, k].sum() < len(truth)
    ]
    return float(np.mean(scored)) if scored else None


def _area_under_curve(truth: np.ndarray, score: np.ndarray) -> float:
    # The share of pairs of a true and an untrue image that the score puts in order, ties half, from
    # the ranks. Not scikit-learn's: importing it takes the app two seconds and 100 MB.
    _, place, count = np.unique(score, return_inverse=True, return_counts=True)
    rank = (np.cumsum(count) - (count - 1) / 2)[place]
    positive, negative = int(truth.sum()), int((~truth).sum())
    return (rank[truth].sum() - positive * (positive + 1) / 2) / (positive * negative)


@torch.inference_mode()
def classify(
    model: nn.Module,
    images: np.ndarray | Tensor,
    protocol: Protocol,
    *,
    side_px: int,
    angle_deg: float,
    is_multi_label: bool,
    batch_size: int = 128,
) -> np.ndarray:
    """Give the probabilities (N, K) of uint8 images, (N, H, W) or (N, H, W, 3), at one angle."""
    device = next(model.parameters()).device
    parts = []
    for start in range(0, len(images), batch_size):
        pixels = prepare(images[start : start + batch_size], protocol, side_px=side_px)
        x = present(pixels.to(device), protocol, angle_deg=angle_deg)
        parts.append(probabilities(model(x).float(), is_multi_label=is_multi_label).cpu())
    return torch.cat(parts).numpy()


@dataclass(frozen=True, slots=True)
class AngleDone:
    """How a model does at one angle."""

    angle_deg: float
    accuracy: float  # 0 to 1; of multi-label sets the mean over labels
    auc: float | None
    predictions: np.ndarray


def evaluate_angles(
    model: nn.Module,
    images: np.ndarray,
    labels: np.ndarray,
    protocol: Protocol,
    *,
    side_px: int,
    is_multi_label: bool,
    angles_deg: tuple[float, ...] = ANGLES_DEG,
) -> Iterator[AngleDone]:
    """Evaluate a model in eval mode on uint8 images, one angle after the other."""
    for angle in angles_deg:
        found = classify(
            model, images, protocol, side_px=side_px, angle_deg=angle, is_multi_label=is_multi_label
        )
        yield angle_done(angle, found, labels, is_multi_label=is_multi_label)


def angle_done(
    angle_deg: float, probability: np.ndarray, labels: np.ndarray, *, is_multi_label: bool
) -> AngleDone:
    """Hold probabilities (N, K) at one angle against the labels."""
    predictions = decide(probability, is_multi_label=is_multi_label)
    accuracy = float((predictions == labels).mean())
    return AngleDone(angle_deg, accuracy, auc(probability, labels), predictions)


def summarise(done: list[AngleDone]) -> dict[str, float | int | None]:
    """Sum up an evaluation whose first angle is 0: the figures that a checkpoint's card keeps."""
    accuracy = np.array([d.accuracy for d in done])
    worst = int(accuracy.argmin())
    return {
        "images": len(done[0].predictions),
        "angles": len(done),
        "accuracy_at_0": float(accuracy[0]),
        "accuracy_mean": float(accuracy.mean()),
        "accuracy_std": float(accuracy.std()),
        "accuracy_worst": float(accuracy[worst]),
        "worst_angle_deg": done[worst].angle_deg,
        "auc_at_0": done[0].auc,
        "consistency": consistency(np.stack([d.predictions for d in done])),
    }
