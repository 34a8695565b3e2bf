"""Which implementation an op takes: the reference in plain PyTorch, or a fused Triton kernel.

The reference is the specification, and what CPUs run. On CUDA devices with Triton, the kernels are
checked against it once, on a few numbers, before they are used.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, get_args

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

Backend = Literal["auto", "reference", "triton"]

_backend: Backend = "auto"
_verdicts: dict[torch.device, bool] = {}
_is_checking = False


@contextmanager
def use_backend(backend: Backend) -> Iterator[None]:
    """While open, ops take this implementation.

    Args:
        backend: "reference"; "triton", on the CPU too, where Triton's interpreter runs kernels;
            "auto", which takes Triton on CUDA devices where it works.

    Raises:
        ValueError: if there is no such backend.
    """
    global _backend
    if backend not in get_args(Backend):
        raise ValueError(f"backend must be one of {get_args(Backend)}, got {backend!r}")
    before, _backend = _backend, backend
    try:
        yield
    finally:
        _backend = before


def is_fused(x: Tensor) -> bool:
    """Tell whether an op on `x` is to take its Triton kernel."""
    if _backend == "reference" or torch.compiler.is_compiling():
        return False  # a compiler fuses by itself
    if _backend == "triton":
        return True
    if not x.is_cuda or _is_checking:
        return False
    if x.device not in _verdicts:
        _verdicts[x.device] = _works_on(x.device)
    return _verdicts[x.device]


def _works_on(device: torch.device) -> bool:
    """Compare the kernels with the reference on a device, and log the outcome."""
    global _is_checking
    _is_checking = True
    try:
        from stylegan.ops.kernels import check_kernels

        check_kernels(device)
    except ImportError:
        logger.info("fused kernels are off, as Triton is not installed")
        return False
    except Exception as error:  # a wrong result, an unknown GPU, a compiler that fails
        lines = str(error).strip().splitlines() or [type(error).__name__]
        logger.warning(
            "fused kernels are off (%s): plain PyTorch computes the same, but more slowly",
            lines[0][:120],
        )
        return False
    finally:
        _is_checking = False
    logger.info("fused Triton kernels are on")
    return True
