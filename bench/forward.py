"""How long a pass forward takes, and how much memory: python -m bench.forward.

SRE-ResNet18 of this library against the authors' packages and against ordinary networks, 32 px,
width 64, kernels 9, 9, 5, 5, everything in turn, in one run.
"""

import sys
from collections.abc import Sequence

from bench.networks import Call, build, for_inference, images, infer, run_comparison


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write bench/results/forward.json."""
    return run_comparison(
        "forward", __doc__, prepare, arguments, batches=(1, 36, 256), memory_batch=256
    )


def prepare(name: str, batch: int) -> Call:
    """A pass of one network over one batch, ready to be timed."""
    return infer(for_inference(name, build(name)), images(batch))


if __name__ == "__main__":
    sys.exit(main())
