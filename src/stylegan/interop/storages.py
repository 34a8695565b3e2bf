"""Stand-ins for torch's storages and tensors in pickles: nothing is allocated on a file's word.

`torch.load(weights_only=True)` would read most of these files, but it allocates what a header
declares before it looks at what is there, and refuses files that name an `argparse.Namespace`.
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
from stylegan.interop.restricted import Budget, Machine, Name, instance_of, shown

_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_START = b"\x80\x02\x8a\x0a" + _MAGIC.to_bytes(10, "little") + b"."
"""What a file of torch.save starts with, in the form before zip archives."""
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
    """Numbers that a file holds somewhere, read when they are needed.

    Args:
        dtype: of the numbers.
        key: its name in the file.
        numel: how many the file declares; `read` must give as many.
        read: returns the bytes, not to be written to; None until the place in the file is known.
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
        """Drop what was read, so that only tensors in use keep their memory."""
        self._flat = None

    def flat(self) -> Tensor:
        """Return all numbers as a tensor [numel], read once until `forget`."""
        if self._flat is None:
            if self.read is None:
                raise ValueError(f"a storage {shown(self.key)} without data")
            self._flat = flat_tensor(self.read(), self.dtype)
        return self._flat


@dataclass(frozen=True, eq=False)
class StoredTensor:
    """A view of a storage that lies within it and repeats nothing; `load` reads it."""

    storage: Storage
    offset: int
    sizes: Sequence[int]
    strides: Sequence[int]

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return math.prod(self.sizes) * self.storage.dtype.itemsize

    def load(self) -> Tensor:
        """Return the tensor, not to be written to: it shares its storage with others."""
        flat = self.storage.flat()
        if math.prod(self.sizes) == 0:
            return flat.new_empty(self.sizes)
        return flat.as_strided(self.sizes, self.strides, self.offset)


def load_all(
    stored: Mapping[str, StoredTensor], *, num_bytes: int, origin: str
) -> dict[str, Tensor]:
    """Read tensors; those that shared a storage still do.

    Args:
        stored: by their names.
        num_bytes: size of the file, which neither all tensors nor all storages may exceed.
        origin: the file, for errors.

    Raises:
        WeightsError: if they do, or the storages are larger than `restricted.MAX_HELD`.
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
    """Return what stands in for each name that pickled tensors and storages need."""

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
                f"{origin} declares a tensor of {shown(numel)} elements, the last at "
                f"{shown(extent - 1)}, over a storage of {shown(held.numel)}",
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
        TypeError, ValueError, LookupError: if it is no such id.
    """
    # The form before zip archives has a sixth item, for views; nothing in use writes any.
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
    """Read what torch.save wrote before it wrote zip archives.

    Args:
        stream: at its start, seekable; storages are read from it when they are needed.
        origin: the file, for errors.
        num_bytes: size of the stream; it must end with the last storage.
        calls: the allowed names of the main pickle, those of `tensor_calls` among them.
        budget: of the whole file.
        data: what the stream reads, if that is in memory; storages are then views of it.

    Returns:
        The saved object; tensors in it are `StoredTensor`, storages `Storage`.
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
                f"{origin} declares a storage of {shown(storage.numel)} elements over {left} bytes",
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
    """Read exactly so many bytes, in pieces; ValueError if the stream has fewer."""
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


def _refusal(found: str, expected: str) -> WeightsError:
    """Say what is wrong with a file that cannot be repaired."""
    return WeightsError(
        found, expected=expected, fix="download the file again, and do not trust it"
    )
