"""Whether CUDA rounds the inputs of float32 products to TensorFloat-32.

PyTorch does so in convolutions by default, with a relative error of about 1e-3. Networks here
compute in real float32 unless a caller opens `float32_precision(tf32=True)`.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

import torch

Parameters = ParamSpec("Parameters")
Module = TypeVar("Module")
Result = TypeVar("Result")

_backends: Any = torch.backends  # its newer names have no types
_lock = threading.Lock()
_num_chosen = 0  # contexts of `float32_precision` that are open
_num_exact = 0  # calls of `exact_float32` methods that are running
_restore: Callable[[], None] | None = None


@contextmanager
def float32_precision(*, tf32: bool) -> Iterator[None]:
    """Choose how CUDA computes float32 products while the context is open, then restore it.

    The setting is PyTorch's own and covers the whole process: backward passes inside the context
    are covered, too.

    Args:
        tf32: round the inputs of products to TensorFloat-32.
    """
    global _num_chosen
    with _lock:
        restore = _switch(tf32)
        _num_chosen += 1
    try:
        yield
    finally:
        with _lock:
            _num_chosen -= 1
            restore()


def switch_off_tf32() -> None:
    """Let CUDA compute in real float32 from now on, unless `float32_precision` is open.

    Networks switch TF32 off by themselves; gradients and feature networks need this.
    """
    with _lock:
        if _num_chosen == 0:
            _switch(False)


def exact_float32(
    method: Callable[Concatenate[Module, Parameters], Result],
) -> Callable[Concatenate[Module, Parameters], Result]:
    """Make a module's method compute without TensorFloat-32, unless `float32_precision` is open.

    Gradients are computed after the method has returned, so they follow the setting at that time.
    Inside a function that `torch.compile` compiles as a whole nothing is changed either.
    """

    @wraps(method)
    def exact(self: Module, /, *args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        if torch.compiler.is_compiling() or _num_chosen > 0:
            return method(self, *args, **kwargs)
        _enter_exact()
        try:
            return method(self, *args, **kwargs)
        finally:
            _leave_exact()

    return exact


def is_tf32() -> bool:
    """Return whether CUDA convolutions of float32 tensors are rounded at present."""
    return str(_backends.cudnn.conv.fp32_precision) == "tf32"


def _enter_exact() -> None:
    """Switch rounding off in the outermost call; calls nest, and may come from several threads."""
    global _num_exact, _restore
    with _lock:
        if _num_exact == 0:
            _restore = _switch(False)
        _num_exact += 1


def _leave_exact() -> None:
    global _num_exact
    with _lock:
        _num_exact -= 1
        if _num_exact == 0 and _restore is not None:
            _restore()


def _switch(tf32: bool) -> Callable[[], None]:
    """Change PyTorch's settings, and return a function that restores them."""
    cudnn, matmul = _backends.cudnn, _backends.cuda.matmul
    value: bool | str
    owners, name, value = (cudnn, matmul), "allow_tf32", tf32
    try:
        before = [getattr(owner, name) for owner in owners]
        is_inherited = "tf32" in (_backends.fp32_precision, cudnn.fp32_precision)
    except RuntimeError:  # the older names cannot be read once the newer ones were used
        is_inherited = True
    if is_inherited:
        owners, name, value = (cudnn.conv, matmul), "fp32_precision", "tf32" if tf32 else "ieee"
        before = [getattr(owner, name) for owner in owners]
    for owner in owners:
        setattr(owner, name, value)

    def restore() -> None:
        for owner, old in zip(owners, before, strict=True):
            setattr(owner, name, old)

    return restore
