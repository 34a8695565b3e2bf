"""Triton compiles every kernel for GPUs, also on a machine that has none."""

import importlib.util
import os
import subprocess
import sys

import pytest

if importlib.util.find_spec("triton") is None:
    pytest.skip("no Triton for this system", allow_module_level=True)

# in a process of its own, because the interpreter is chosen when Triton is first imported
COMPILE = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from stylegan.ops import kernels

for architecture, dtype in ((80, "fp16"), (90, "fp64"), (90, "fp32"), (90, "bf16")):
    common = {"is_last": True, "is_wide": dtype == "fp64", "block": kernels.BLOCK}
    pointwise = common | {"slope": 0.2, "clamp": 0.7, "has_scale": True, "has_clamp": True}
    of_kernels = {
        kernels._epilogue_kernel: pointwise | {"has_noise": True, "has_bias": True},
        kernels._slope_kernel: pointwise,
        kernels._upfirdn_kernel: common | {"up": 2, "down": 1, "taps_y": TAPS, "taps_x": TAPS},
    }
    for kernel, constants in of_kernels.items():
        names = kernel.arg_names
        signature = {name: "*" + dtype if name.endswith("_ptr") else "i32" for name in names}
        signature |= dict.fromkeys(constants, "constexpr")
        constexprs = {(names.index(name),): value for name, value in constants.items()}
        source = ASTSource(fn=kernel, signature=signature, constexprs=constexprs)
        target = GPUTarget("cuda", architecture, 32)
        found = triton.compile(source, target=target, options=kernels._OPTIONS)
        print("KERNEL", kernel.fn.__name__, architecture, dtype, len(found.asm["cubin"]))
        print(found.asm["ttir"])
"""


@pytest.mark.slow
@pytest.mark.parametrize("taps", [2, 4])
def test_kernels_compile_without_a_warning(tmp_path, taps):
    unwanted = ("TRITON_INTERPRET", "TRITON_DEFAULT_FP_FUSION")
    environment = {name: value for name, value in os.environ.items() if name not in unwanted}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", COMPILE.replace("TAPS", str(taps))],
        env=environment | {"TRITON_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    _, *compiled = done.stdout.split("KERNEL ")
    assert len(compiled) == 12
    for each in compiled:
        name, _, dtype, num_bytes = each.splitlines()[0].split()
        assert int(num_bytes) > 1000
        if name != "_upfirdn_kernel":
            # constants have the type in which it computes: as an argument, 0.2 would be a float32
            computed = "f64" if dtype == "fp64" else "f32"
            assert f"dense<2.000000e-01> : tensor<1024x{computed}>" in each
