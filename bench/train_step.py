"""How long a training step takes, and how much memory: python -m bench.train_step.

The networks of bench.forward; one step of SGD: forward, backward, update.
"""

import sys
from collections.abc import Sequence

from bench.networks import Call, build, images, run_comparison, train_step


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write bench/results/train_step.json."""
    return run_comparison(
        "train_step", __doc__, prepare, arguments, batches=(32, 128), memory_batch=128
    )


def prepare(name: str, batch: int) -> Call:
    """A training step of one network on one batch, ready to be timed."""
    return train_step(name, build(name), images(batch))


if __name__ == "__main__":
    sys.exit(main())
