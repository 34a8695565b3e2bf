"""Stand-ins for torch's storages and tensors in pickles, which allocate only what a file holds.

`torch.load(weights_only=True)` would read most of these files, but it allocates the sizes that a
header declares before it reads the data, and refuses files that name an `argparse.Namespace`.
"""

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import IO

import torch
from torch import Tensor

from stylegan.errors import WeightsError
from stylegan.interop.arrays import flat_tensor
from stylegan.interop.restricted import SUSPECT, Budget, Machine, Name, instance_of, quoted

_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_START = b"\x80\x02\x8a\x0a" + _MAGIC.to_bytes(10, "little") + b"."
"""Start of a file of torch.save in the format before zip archives."""
_PROTOCOL = 1001
_DTYPES = {
    "torch.FloatStorage": torch.float32,
    "torch.DoubleStorage": torch.float64,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16,
    "torch.CharStorage": torch.int8,
    "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
}
_MAX_DIMENSIONS = 8
_CHUNK = 1 << 20


@dataclass(eq=False)
class Storage:
    """Numbers of a file, read when they are needed.

    Args:
        dtype: dtype of the numbers.
        key: name of the storage in the file.
        numel: number of elements that the file declares; `read` must return as many.
        read: returns the bytes, which must not be written to; None until the position in the file
            is known.
    """

    dtype: torch.dtype
    key: str
    numel: int
    read: Callable[[], bytearray | memoryview] | None = None
    _flat: Tensor | None = field(default=None, init=False, repr=False)

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return self.numel * self.dtype.itemsize

    def forget(self) -> None:
        """Drop the data that was read, so that only tensors in use keep their memory."""
        self._flat = None

    def flat(self) -> Tensor:
        """Return all numbers as a tensor [numel], read once until `forget`."""
        if self._flat is None:
            if self.read is None:
                raise ValueError(f"a storage {quoted(self.key)} without data")
            self._flat = flat_tensor(self.read(), self.dtype)
        return self._flat


@dataclass(frozen=True, eq=False)
class StoredTensor:
    """A view of a storage, checked to lie within it; `load` reads it."""

    storage: Storage
    offset: int
    sizes: Sequence[int]
    strides: Sequence[int]

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return math.prod(self.sizes) * self.storage.dtype.itemsize

    def load(self) -> Tensor:
        """Return the tensor. It must not be written to, as it may share its storage."""
        flat = self.storage.flat()
        if math.prod(self.sizes) == 0:
            return flat.new_empty(self.sizes)
        return flat.as_strided(self.sizes, self.strides, self.offset)


def load_all(
    stored: Mapping[str, StoredTensor], *, num_bytes: int, origin: str
) -> dict[str, Tensor]:
    """Read tensors. Those that share a storage in the file share it in memory, too.

    Args:
        stored: tensors by their names.
        num_bytes: size of the file.
        origin: the file, for errors.

    Raises:
        WeightsError: if all tensors or all storages are larger than the file, or the storages
            larger than `restricted.MAX_HELD`.
        ValueError: if a storage has no data.
    """
    views, held = Budget(num_bytes, origin), Budget(num_bytes, origin)
    storages = {id(tensor.storage): tensor.storage for tensor in stored.values()}
    for storage in storages.values():
        held.charge(storage.nbytes)
        held.hold(storage.nbytes)
    for tensor in stored.values():
        views.charge(tensor.nbytes)
    loaded = {name: tensor.load() for name, tensor in stored.items()}
    for storage in storages.values():
        storage.forget()
    return loaded


def tensor_calls(origin: str) -> dict[str, Callable[..., object]]:
    """Return the stand-ins for the names that pickled tensors and storages need."""

    def rebuild(
        storage: object, offset: object, size: object, stride: object, *_: object
    ) -> StoredTensor:
        held = instance_of(storage, Storage)
        start = instance_of(offset, int)
        sizes = [instance_of(n, int) for n in instance_of(size, tuple)]
        strides = [instance_of(n, int) for n in instance_of(stride, tuple)]
        if len(sizes) != len(strides) or len(sizes) > _MAX_DIMENSIONS:
            raise ValueError("a tensor whose size and stride disagree")
        if start < 0 or any(not 0 <= n < 1 << 48 for n in (*sizes, *strides)):
            raise ValueError("a tensor with an impossible size")
        numel = math.prod(sizes)
        extent = start + sum((n - 1) * step for n, step in zip(sizes, strides, strict=True)) + 1
        if numel > held.numel or (numel and extent > held.numel):
            raise _refusal(
                f"{origin} declares a tensor of {quoted(numel)} elements, the last at "
                f"{quoted(extent - 1)}, over a storage of {quoted(held.numel)}",
                "tensors that lie within their storage",
            )
        if numel == 0 and any(n > 1 << 20 for n in sizes):
            raise ValueError("a tensor with an impossible size")
        return StoredTensor(held, start, sizes, strides)

    def no_call(*_: object) -> object:
        raise ValueError("a storage class that is called")

    return {
        "torch._utils._rebuild_tensor_v2": rebuild,
        "torch._utils._rebuild_parameter": lambda data, *_: instance_of(data, StoredTensor),
        "torch.Size": lambda size: instance_of(size, tuple),
        "torch.device": lambda kind, index=0: instance_of(kind, str),
        **dict.fromkeys(_DTYPES, no_call),
    }


def storage_of(identity: object) -> Storage:
    """Return the storage that a persistent id declares, without its data.

    Raises:
        TypeError, ValueError, LookupError: if it is not such an id.
    """
    # The format before zip archives has a sixth item for views, which no current version writes.
    kind, name, key, _, numel, *view = instance_of(identity, tuple)
    dtype = _DTYPES[instance_of(name, Name).name]
    if kind != "storage" or view not in ([], [None]):
        raise ValueError("a persistent id of another kind")
    if not 0 <= instance_of(numel, int) < 1 << 48:
        raise ValueError("a storage with an impossible size")
    return Storage(dtype, instance_of(key, str), numel)


def read_legacy(
    stream: IO[bytes],
    origin: str,
    *,
    num_bytes: int,
    calls: dict[str, Callable[..., object]],
    budget: Budget,
    data: bytes | None = None,
) -> object:
    """Read a file of torch.save in the format before zip archives.

    Args:
        stream: at its start, seekable; storages are read from it when they are needed.
        origin: the file, for errors.
        num_bytes: size of the stream; it must end with the last storage.
        calls: the allowed names of the main pickle, including those of `tensor_calls`.
        budget: budget of the whole file.
        data: content of the stream, if it is in memory; storages are then views of it.

    Returns:
        The saved object. Tensors in it are `StoredTensor`, storages `Storage`.
    """
    storages: dict[str, Storage] = {}

    def declared(identity: object) -> Storage:
        storage = storage_of(identity)
        return storages.setdefault(storage.key, storage)

    def run(persistent: Callable[[object], object] | None = None) -> object:
        return Machine(origin, calls, budget=budget, persistent=persistent).run(stream)

    if run() != _MAGIC or run() != _PROTOCOL:
        raise ValueError("a storage without its signature")
    if instance_of(run(), dict).get("little_endian") is not (sys.byteorder == "little"):
        raise ValueError("a storage of the other byte order")
    root = run(declared)
    keys = instance_of(run(), list)
    if set(map(str, keys)) != storages.keys() or len(keys) != len(storages):
        raise ValueError("a storage with another's key")
    for key in keys:
        storage = storages[key]
        numel = int.from_bytes(stream.read(8), "little")
        start = stream.tell()
        left = max(num_bytes - start, 0)
        if numel != storage.numel or storage.nbytes > left:
            raise _refusal(
                f"{origin} declares a storage of {quoted(storage.numel)} elements over {left} "
                "bytes",
                "a storage as large as its data",
            )
        storage.read = (
            partial(_read_at, stream, start, storage.nbytes)
            if data is None
            else partial(_view_at, data, start, storage.nbytes)
        )
        stream.seek(start + storage.nbytes)
    if stream.tell() != num_bytes:
        raise _refusal(
            f"{origin} has {num_bytes - stream.tell()} bytes after its last storage",
            "a storage as large as its data",
        )
    return root


def read_whole(stream: IO[bytes], num_bytes: int) -> bytearray:
    """Read exactly `num_bytes` bytes in chunks; ValueError if the stream has fewer."""
    data = bytearray()
    while len(data) < num_bytes:
        piece = stream.read(min(_CHUNK, num_bytes - len(data)))
        if not piece:
            raise ValueError(f"{len(data)} bytes where {num_bytes} should be")
        data += piece
    return data


def _view_at(data: bytes, start: int, num_bytes: int) -> memoryview:
    return memoryview(data)[start : start + num_bytes]


def _read_at(stream: IO[bytes], start: int, num_bytes: int) -> bytearray:
    stream.seek(start)
    return read_whole(stream, num_bytes)


def _refusal(message: str, expected: str) -> WeightsError:
    """Return the error for a file that must not be trusted."""
    return WeightsError(message, expected=expected, fix=SUSPECT)
