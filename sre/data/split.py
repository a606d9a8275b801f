"""What every loader returns."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Images and labels of one split.

    The arrays are read-only, as callers share them: ``torch.tensor(split.images)`` copies, and
    so does indexing with a list.

    Shape: images (N, H, W), (N, H, W, 3) or (N, D, H, W); labels (N,), or (N, L) if multi-label
    """

    images: np.ndarray  # uint8
    labels: np.ndarray  # int64 class indices, or uint8 zeros and ones if multi-label

    def __post_init__(self) -> None:
        self.images.flags.writeable = False
        self.labels.flags.writeable = False

    def __len__(self) -> int:
        return len(self.images)
