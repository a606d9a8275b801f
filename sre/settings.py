"""Settings of a training run."""

from dataclasses import dataclass

from sre.errors import SettingError
from sre.protocols import find_protocol


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """Settings of one run, the same for every model that is compared.

    Raises: SettingError: a number is out of range
    """

    epochs: int = 20
    batch_size: int = 64
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    warmup: float = 0.1  # share of all steps
    scale: float = 0.1  # images are scaled by up to this share either way
    shift: float = 0.1  # and shifted by up to this share of their side
    jitter: float = 0.1  # brightness and contrast, likewise
    mask_rate: float = 0.5  # share of images masked to the disc, so that both protocols are met
    rotate: bool = False  # by any angle
    side_px: int = 28
    protocol: str = "disc"  # of the validation images
    seed: int = 1
    balance: bool = False  # bands of radial kernels learn at one pace, see sre.balancing

    def __post_init__(self) -> None:
        allowed = (
            ("epochs", 1 <= self.epochs <= 10_000, "from 1 to 10000"),
            ("batch_size", 2 <= self.batch_size <= 4096, "from 2 to 4096"),
            ("learning_rate", 0 < self.learning_rate <= 1, "above 0 and at most 1"),
            ("weight_decay", 0 <= self.weight_decay <= 1, "from 0 to 1"),
            ("warmup", 0 <= self.warmup < 1, "from 0 to below 1"),
            ("scale", 0 <= self.scale < 1, "from 0 to below 1"),
            ("shift", 0 <= self.shift < 1, "from 0 to below 1"),
            ("jitter", 0 <= self.jitter < 1, "from 0 to below 1"),
            ("mask_rate", 0 <= self.mask_rate <= 1, "from 0 to 1"),
            ("side_px", 24 <= self.side_px <= 224, "from 24 to 224"),
            ("seed", 0 <= self.seed < 2**63, "a whole number of at least 0"),
        )
        for name, holds, range_text in allowed:
            if not holds:
                raise SettingError(f"{name} must be {range_text}, got {getattr(self, name)}")
        find_protocol(self.protocol)
