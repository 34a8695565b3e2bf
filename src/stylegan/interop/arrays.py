"""Stand-ins for numpy's dtypes, scalars and arrays in pickles.

They support the module names `numpy.core` (numpy 1) and `numpy._core` (numpy 2), and byte strings
of Python 2, which are read as latin1 text.
"""

import math
import re
import sys
import warnings
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from stylegan.interop.restricted import Budget, Name, instance_of, quoted

_DTYPES = {
    "b1": torch.bool,
    "u1": torch.uint8,
    "i1": torch.int8,
    "i2": torch.int16,
    "i4": torch.int32,
    "i8": torch.int64,
    "f2": torch.float16,
    "f4": torch.float32,
    "f8": torch.float64,
}
_MAX_DIMENSIONS = 8


class Dtype:
    """A stand-in for `numpy.dtype`, for numbers only."""

    def __init__(self, code: object, align: object = False, copy: object = True) -> None:
        self.code = instance_of(code, str)
        if not re.fullmatch(r"b1|[fiu][1248]", self.code):
            raise ValueError(f"numpy dtype {quoted(code)}")
        self.itemsize = int(self.code[1])

    def restore(self, state: object) -> None:
        """Check the byte order, the only part of the state that affects numbers."""
        if instance_of(state, tuple)[1] not in ("<", "|"):
            raise ValueError("numbers that are not little-endian")

    def scalar(self, data: object) -> object:
        """Return one number as a Python object."""
        return np.frombuffer(as_bytes(data), self.code).item()


class Array:
    """A stand-in for `numpy.ndarray`: bytes of the file, converted to a tensor on demand.

    Args:
        budget: charged for copies of data that is stored as text.
    """

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._raw: bytes | bytearray | str | None = None
        self._dtype = torch.float32
        self._sizes: list[int] = []
        self._axes: tuple[int, ...] = ()
        self._tensor: Tensor | None = None

    def restore(self, state: object) -> None:
        """Set the state (version, shape, dtype, is_fortran, data); old numpy has no version."""
        shape, dtype, is_fortran, data = instance_of(state, tuple)[-4:]
        self.fill(data, shape, dtype, order="F" if is_fortran else "C")

    def fill(
        self, data: object, shape: object, dtype: object, *, order: object, axes: object = None
    ) -> None:
        """Set the data, whose size must agree with shape and dtype.

        Args:
            data: bytes, or text for byte strings of Python 2. Text is kept until `tensor`, as a
                file may use one text for many arrays.
            shape: shape of the array; with order "K", of the data before axes are permuted.
            dtype: a `Dtype`.
            order: "C" if the last axis is contiguous in memory, "F" if the first axis is, "K" if
                `axes` defines the order.
            axes: for "K", the axis of `shape` for each axis of the array.
        """
        raw = data if isinstance(data, str | bytearray) else instance_of(data, bytes)
        sizes = [instance_of(size, int) for size in instance_of(shape, tuple)]
        kind = instance_of(dtype, Dtype)
        text = f"[{', '.join(quoted(size) for size in sizes[:_MAX_DIMENSIONS])}] {kind.code}"
        if len(sizes) > _MAX_DIMENSIONS or any(not 0 <= size < 1 << 48 for size in sizes):
            raise ValueError(f"an array of {text}")
        if kind.code not in _DTYPES or math.prod(sizes) * kind.itemsize != len(raw):
            raise ValueError(f"an array of {text} over {len(raw)} bytes")
        everything = range(len(sizes))
        if order == "K":
            self._axes = tuple(instance_of(axis, int) for axis in instance_of(axes, tuple))
        elif order == "F":
            sizes, self._axes = sizes[::-1], tuple(reversed(everything))
        else:
            self._axes = tuple(everything)
        if sorted(self._axes) != list(everything):
            raise ValueError(f"an array of {text} with other axes")
        self._raw, self._dtype, self._sizes = raw, _DTYPES[kind.code], sizes

    def tensor(self) -> Tensor:
        """Return the data as a read-only tensor; ValueError if the file has none."""
        if self._tensor is None:
            if self._raw is None:
                raise ValueError("an array without data")
            if isinstance(self._raw, str):
                self._budget.charge(len(self._raw))
                # The copy replaces the text, unless there are other references to the text than
                # the attribute's and the argument's.
                if sys.getrefcount(self._raw) > 2:
                    self._budget.hold(len(self._raw))
                self._raw = as_bytes(self._raw)
            flat = flat_tensor(self._raw, self._dtype)
            self._raw = None
            self._tensor = flat.reshape(self._sizes).permute(self._axes)
        return self._tensor


def array_calls(budget: Budget) -> dict[str, Callable[..., object]]:
    """Return the stand-ins for the names that pickled numbers and arrays need."""

    def reconstruct(kind: object, shape: object, code: object) -> Array:
        if instance_of(kind, Name).name != "numpy.ndarray" or shape != (0,):
            raise ValueError("an array of another kind")
        return Array(budget)

    def from_buffer(
        data: object, dtype: object, shape: object, order: object, axes: object = None
    ) -> Array:
        array = Array(budget)
        array.fill(data, shape, dtype, order=order, axes=axes)
        return array

    def empty_bytes(*arguments: object) -> bytes:
        if arguments:
            raise ValueError("bytes made from arguments")
        return b""

    def encode(text: object, encoding: object) -> str:
        # Protocol 2 stores bytes like this. They stay text until they are needed.
        if encoding not in ("latin1", "latin-1"):
            raise ValueError(f"text to encode as {quoted(encoding)}")
        return instance_of(text, str)

    def scalar(dtype: object, data: object) -> object:
        kind = instance_of(dtype, Dtype)
        if isinstance(data, str) and len(data) != kind.itemsize:
            raise ValueError(f"a number of {len(data)} bytes")
        return kind.scalar(data)

    def no_call(*_: object) -> object:
        raise ValueError("an array class that is called")

    calls: dict[str, Callable[..., object]] = {
        "numpy.dtype": Dtype,
        "numpy.ndarray": no_call,
        "_codecs.encode": encode,
        "__builtin__.bytes": empty_bytes,  # protocol 2 stores b"" like this
    }
    for core in ("numpy.core", "numpy._core"):
        calls[f"{core}.multiarray.scalar"] = scalar
        calls[f"{core}.multiarray._reconstruct"] = reconstruct
        calls[f"{core}.numeric._frombuffer"] = from_buffer
    return calls


def as_bytes(data: object) -> bytes | bytearray:
    """Return bytes unchanged, and text of Python 2's byte strings as bytes."""
    if isinstance(data, bytearray):
        return data
    # Other characters raise UnicodeEncodeError, a ValueError, which callers report.
    return data.encode("latin1") if isinstance(data, str) else instance_of(data, bytes)


def flat_tensor(data: bytes | bytearray | memoryview, dtype: torch.dtype) -> Tensor:
    """Return the numbers in `data` as a read-only tensor [n] that shares its memory."""
    if len(data) == 0:
        return torch.empty(0, dtype=dtype)
    with warnings.catch_warnings():
        # Nothing writes to it: networks copy the tensors that they load.
        warnings.filterwarnings("ignore", "The given buffer is not writable", UserWarning)
        return torch.frombuffer(data, dtype=dtype)
