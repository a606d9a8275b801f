"""Runs what is to be said of Triton's kernels in processes of their own.

Triton's interpreter must be asked for before Triton is imported, and the checker of shapes, which
rewrites every function of the library for the tests, would rewrite the kernels.
"""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).resolve().parent
pytestmark = pytest.mark.skipif(
    find_spec("triton") is None, reason="needs triton, which PyTorch brings on Linux"
)


def run_alone(name, environment):
    command = [sys.executable, "-m", "pytest", "-q", "--override-ini=addopts=", "--strict-markers"]
    done = subprocess.run(
        [*command, "-p", "no:cacheprovider", str(HERE / name)],
        cwd=HERE.parent, env=os.environ | environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


def test_kernels_do_what_the_dense_kernel_does():
    run_alone("triton_kernels.py", {} if torch.cuda.is_available() else {"TRITON_INTERPRET": "1"})


def test_kernels_compile(tmp_path):
    run_alone("triton_compiled.py", {"TRITON_CACHE_DIR": str(tmp_path)})
