"""Triton kernels against the reference ops and torch.compile's fusion, on a GPU.

    python benchmarks/ops.py [--out benchmarks/results/NAME.json]

Forward and backward, in float16 and float32, at the sizes of a 1024x1024 generator. A
kernel that is slower than torch.compile's fusion should be removed.
"""

import argparse
import json
from datetime import date
from pathlib import Path

import torch
import triton

from stylegan.ops.backend import use_backend
from stylegan.ops.epilogue import epilogue
from stylegan.ops.fir import downsample2d, fir_kernel, upfirdn2d, upsample2d

SIZES = [(512, 64), (128, 256), (32, 1024)]  # channels, side
BATCH = 8


def cases(channels, side, dtype):
    """Yield a name, a function and its inputs."""
    options = {"device": "cuda", "dtype": dtype}
    x = torch.randn(BATCH, channels, side, side, **options)
    x = x.to(memory_format=torch.channels_last).requires_grad_()
    scale = torch.randn(BATCH, channels, device="cuda", requires_grad=True)
    noise = torch.randn(BATCH, 1, side, side, device="cuda")
    bias = torch.randn(channels, device="cuda", requires_grad=True)
    kernel = fir_kernel([1, 3, 3, 1]).cuda()
    yield (
        "epilogue",
        lambda x, s, b: epilogue(x, scale=s, noise=noise, bias=b, slope=0.2, clamp=256.0),
        [x, scale, bias],
    )
    yield "blur", lambda x: upfirdn2d(x, kernel, padding=(1, 1, 1, 1), gain=4), [x]
    yield "upsample", lambda x: upsample2d(x, kernel), [x]
    yield "downsample", lambda x: downsample2d(x, kernel), [x]


def milliseconds(function, inputs):
    """Return the median times of forward, and of forward and backward together."""
    with torch.no_grad():
        forward = triton.testing.do_bench(lambda: function(*inputs), return_mode="median")
    grad = torch.randn_like(function(*inputs))
    both = triton.testing.do_bench(
        lambda: torch.autograd.grad(function(*inputs), inputs, grad), return_mode="median"
    )
    return forward, both


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    rows = []
    for dtype in (torch.float16, torch.float32):
        for channels, side in SIZES:
            for name, function, inputs in cases(channels, side, dtype):
                times = {}
                with use_backend("triton"):
                    times["triton"] = milliseconds(function, inputs)
                with use_backend("reference"):
                    times["reference"] = milliseconds(function, inputs)
                    torch._dynamo.reset()  # each case is compiled for its sizes
                    compiled = torch.compile(function, dynamic=False)
                    times["compiled"] = milliseconds(compiled, inputs)
                rows.append(
                    {"op": name, "dtype": str(dtype), "channels": channels, "side": side, **times}
                )
                told = "   ".join(f"{key} {a:.3f} / {b:.3f}" for key, (a, b) in times.items())
                print(f"{name:10} {dtype!s:15} {channels:4} x {side:4}   {told} ms")
    if arguments.out:
        record = {
            "date": date.today().isoformat(),
            "device": torch.cuda.get_device_name(),
            "torch": torch.__version__,
            "triton": triton.__version__,
            "batch": BATCH,
            "milliseconds_forward_and_both": rows,
        }
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
