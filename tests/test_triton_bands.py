"""Runs what is to be said of Triton's kernels in processes of their own.

Triton's interpreter must be asked for before Triton is imported, and the checker of shapes, which
rewrites every function of the library for the tests, would rewrite the kernels.
"""

import os
import subprocess
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).resolve().parent
HAS_GPU = torch.cuda.is_available()
HAS_TRITON = find_spec("triton") is not None
IS_OLD = HAS_TRITON and tuple(map(int, version("triton").split(".")[:2])) < (3, 5)
pytestmark = pytest.mark.skipif(not HAS_TRITON, reason="needs triton: PyTorch brings it on Linux")


def run_alone(name, environment):
    command = [sys.executable, "-m", "pytest", "-q", "--override-ini=addopts=", "--strict-markers"]
    done = subprocess.run(
        [*command, "-p", "no:cacheprovider", str(HERE / name)],
        cwd=HERE.parent, env=os.environ | environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


@pytest.mark.skipif(
    IS_OLD and not HAS_GPU, reason="Triton 3.4's interpreter fails with the NumPy of today"
)
def test_kernels_do_what_the_dense_kernel_does():
    run_alone("triton_kernels.py", {} if HAS_GPU else {"TRITON_INTERPRET": "1"})


def test_kernels_compile(tmp_path):
    run_alone("triton_compiled.py", {"TRITON_CACHE_DIR": str(tmp_path)})
