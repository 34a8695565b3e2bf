"""Which implementation an op uses: plain PyTorch (the reference), or a fused Triton kernel.

Both compute the same function. CPUs use the reference. On CUDA devices with Triton, the kernels
are checked on a few numbers before their first use with each dtype.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, get_args

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

Backend = Literal["auto", "reference", "portable", "triton"]

_backend: Backend = "auto"
_checked: dict[tuple[torch.device, torch.dtype], bool] = {}
_is_checking = False


@contextmanager
def use_backend(backend: Backend) -> Iterator[None]:
    """Choose the implementation of the ops while the context is open.

    Args:
        backend: "reference"; "portable", the reference without writes into slices, which formats of
            computation graphs lack; "triton", also on the CPU, where Triton's interpreter runs the
            kernels; "auto" for Triton on CUDA devices where it works.

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
    """Return whether an op on `x` uses its Triton kernel."""
    if _backend in ("reference", "portable") or torch.compiler.is_compiling():
        return False  # a compiler fuses by itself
    if _backend == "triton":
        return True
    if not x.is_cuda or _is_checking:
        return False
    key = x.device, x.dtype
    if key not in _checked:
        _checked[key] = _is_correct(*key)
    return _checked[key]


def is_portable() -> bool:
    """Return whether ops must consist of operations that formats of computation graphs have."""
    return _backend == "portable"


def _is_correct(device: torch.device, dtype: torch.dtype) -> bool:
    """Compare the kernels with the reference, and log the outcome."""
    global _is_checking
    _is_checking = True
    try:
        from stylegan.ops.kernels import check_kernels

        check_kernels(device, dtype)
    except ImportError:
        logger.info("fused kernels are off, as Triton is not installed")
        return False
    except Exception as error:  # a wrong result, an unknown GPU, a compiler that fails
        lines = str(error).strip().splitlines() or [type(error).__name__]
        logger.warning(
            "fused kernels are off for %s (%s): plain PyTorch computes the same, but more slowly",
            dtype,
            lines[0][:120],
        )
        return False
    finally:
        _is_checking = False
    logger.info("fused Triton kernels are on for %s", dtype)
    return True
