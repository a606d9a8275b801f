"""What masking does to equivariance, with black, grey or a soft edge: python -m bench.mask.

One random radial layer (k = 5, 28 px) on the built-in cells, off the quarter turns; relative L2
error inside the disc, as the Lab measures it.
"""

import json
import sys
from pathlib import Path

import torch

from bench.harness import circumstances, spread, write_results
from sre.data.store import load_split
from sre.layers import SREConv2d
from sre.protocols import MEAN, STD, as_pixels, soft_disc
from sre.symmetry import disc_mask, relative_error, rotate

ANGLES_DEG = (10.0, 25.0, 30.0, 45.0, 70.0)
SEEDS, IMAGES = 5, 16


def main() -> int:
    """Measure, print, and write bench/results/mask.json."""
    pixels = as_pixels(load_split("cells", "test", data_dir=Path()).images[:IMAGES])
    side = pixels.shape[-1]
    hard, soft = disc_mask(side, side).float(), soft_disc(side)
    shown = {
        "none": lambda x: (x - MEAN) / STD,
        "black": lambda x: (x * hard - MEAN) / STD,
        "grey": lambda x: (x - MEAN) / STD * hard,
        "grey_soft": lambda x: (x - MEAN) / STD * soft,
    }
    errors = {
        name: spread([e for seed in range(SEEDS) for e in layer_errors(pixels, show, seed)])
        for name, show in shown.items()
    }
    results = {"made_by": "python -m bench.mask", **circumstances(), "relative_error": errors}
    print(json.dumps(errors, indent=1))
    print(f"wrote {write_results('mask', results)}")
    return 0


@torch.inference_mode()
def layer_errors(pixels, show, seed: int) -> list[float]:
    """One number an angle: the mean over the images."""
    torch.manual_seed(seed)
    layer = SREConv2d(pixels.shape[1], 8, 5, padding=2, bias=False)
    upright = layer(show(pixels)).relu()
    inside = disc_mask(*pixels.shape[-2:])
    found = []
    for angle in ANGLES_DEG:
        got = layer(show(rotate(pixels, angle_deg=angle))).relu()
        wanted = rotate(upright, angle_deg=angle)
        found.append(float(relative_error(got, wanted, inside, against=upright).mean()))
    return found


if __name__ == "__main__":
    sys.exit(main())
