"""The kernels for a GPU go through Triton's compiler, for GPUs that need not be here.

Run by test_triton_bands.py, in a process of its own.
"""

import pytest
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from sre import triton_bands

SIZES = {"PIXELS": 64, "OUT": 64}
KERNELS = {
    "_mix_bands": SIZES | {"HAS_BIAS": True, "CHANNELS": 32},
    "_mix_pixels": SIZES | {"IN": 32, "OUT": 32},
}
POINTERS = {"steps": "*i32", "starts": "*i32", "parts": "*fp32"}
VALUES = ("x", "weight", "bias", "out", "grad")


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize(
    ("capability", "dtype", "precision"),
    [(80, "fp32", "ieee"), (80, "fp32", "tf32"), (90, "bf16", "ieee")],
)
def test_compiles(name, capability, dtype, precision):
    kernel, constants = getattr(triton_bands, name), KERNELS[name] | {"PRECISION": precision}
    signature = {
        argument: "constexpr" if argument in constants
        else POINTERS.get(argument, f"*{dtype}" if argument in VALUES else "i32")
        for argument in kernel.arg_names
    }  # fmt: skip
    source = ASTSource(kernel, signature, constexprs=constants)
    target = GPUTarget("cuda", capability, 32)
    compiled = triton.compile(source, target=target, options=dict(triton_bands._OPTIONS))
    # Products of single precision in full stay off the tensor cores, which would round.
    takes_tensor_cores = "mma" in compiled.asm["ptx"]
    assert takes_tensor_cores == (dtype != "fp32" or precision != "ieee")
