"""Where the programs keep what they fetch and make, unless they are told another folder."""

from pathlib import Path

HOME = Path.home() / ".cache" / "sre-lab"
DATA = HOME / "data"
SWEEP = HOME / "sweep"
ANSWERS = HOME / "answers"
