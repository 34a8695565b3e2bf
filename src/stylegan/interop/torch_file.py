"""Files of torch.save, zip archives and the older form, read as data: nothing in them runs."""

import os
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from stylegan.errors import WeightsError
from stylegan.interop.arrays import array_calls
from stylegan.interop.restricted import (
    BoundedFile,
    Budget,
    Machine,
    instance_of,
    new_record,
    shown,
)
from stylegan.interop.sizes import refusal
from stylegan.interop.storages import (
    LEGACY_START,
    Storage,
    StoredTensor,
    load_all,
    read_legacy,
    read_whole,
    storage_of,
    tensor_calls,
)

_ZIP_START = b"PK\x03\x04"
_MAX_DIRECTORY = 16 << 20  # bytes at once; a directory of names has some 100 for each tensor
# what zipfile and our readers raise of files that are not as they should be
_DAMAGE = (EOFError, LookupError, RuntimeError, TypeError, ValueError, zipfile.BadZipFile)
_MAX_NAME = 200  # characters of a tensor's name


@dataclass(frozen=True)
class TorchFile:
    """What torch.save saved; its tensors are read when they are asked for.

    Args:
        origin: the file, for errors.
        num_bytes: its size.
        root: what was saved, a dictionary; tensors in it are `StoredTensor`.
    """

    origin: str
    num_bytes: int
    root: Mapping[object, object]

    def has_tensors(self, key: str) -> bool:
        """Tell whether an item is a dictionary of tensors."""
        value = self.root.get(key)
        return isinstance(value, dict) and any(
            isinstance(item, StoredTensor) for item in value.values()
        )

    def tensors(self, key: str) -> dict[str, Tensor]:
        """Read an item that is a dictionary of tensors.

        Raises:
            WeightsError: if it is none, or its tensors are larger than the file.
        """
        stored = {}
        try:
            for name, value in instance_of(self.root.get(key), dict).items():
                if len(instance_of(name, str)) > _MAX_NAME:
                    raise TypeError("a name that is too long")
                stored[name] = instance_of(value, StoredTensor)
            # For each item anew: two may share their tensors.
            return load_all(stored, num_bytes=self.num_bytes, origin=self.origin)
        except (TypeError, ValueError) as error:
            raise refusal(f"{self.origin} ({key}) holds {error}", "tensors by name") from error

    def tensor(self, key: str) -> Tensor:
        """Read an item that is a tensor; WeightsError if it is none."""
        value = self.root.get(key)
        if not isinstance(value, StoredTensor):
            raise refusal(f"{self.origin} has {shown(value)} as {key}", "a tensor")
        return load_all({key: value}, num_bytes=self.num_bytes, origin=self.origin)[key]


def is_torch_file(path: Path) -> bool:
    """Tell whether a file starts as torch.save begins, or is another zip; raises nothing."""
    try:
        with path.open("rb") as file:
            start = file.read(len(LEGACY_START))
    except OSError:
        return False
    return start.startswith(_ZIP_START) or start == LEGACY_START


@contextmanager
def open_torch_file(path: str | os.PathLike[str]) -> Iterator[TorchFile]:
    """Open a file of torch.save; tensors can be read from it until the end of the context.

    Raises:
        WeightsError: if the file is missing, damaged, of another kind, names anything but
            tensors and options, or declares more data than it holds.
    """
    origin = str(path)
    try:
        stream = _File(Path(path))
    except OSError as error:
        raise _unreadable(origin, error) from error
    with stream:
        yield TorchFile(origin, stream.num_bytes, _read_root(stream, origin))


def _read_root(stream: "_File", origin: str) -> dict[object, object]:
    """Read what was saved, storages aside."""
    budget = Budget(stream.num_bytes, origin)
    try:
        if stream.peek(4)[:4] == _ZIP_START:
            root = _read_archive(zipfile.ZipFile(stream), origin, stream.num_bytes, budget)
        else:
            calls = _calls(origin, budget)
            root = read_legacy(
                stream, origin, num_bytes=stream.num_bytes, calls=calls, budget=budget
            )
    except OSError as error:
        raise _unreadable(origin, error) from error
    except _DAMAGE as error:
        raise _damaged(origin, error) from error
    if not isinstance(root, dict):
        raise refusal(f"{origin} holds {shown(root)}", "a dictionary of networks")
    return root


class _File(BoundedFile):
    """A file that reads no more than a few megabytes at once, a zip's directory included."""

    def read(self, size: int | None = -1, /) -> bytes:
        """Read at most `size` bytes; ValueError if that is more than any reader here needs."""
        is_large = size is None or size < 0 or size > _MAX_DIRECTORY
        if is_large and self.num_bytes - self.tell() > _MAX_DIRECTORY:
            raise ValueError("more names than any such file has")
        return super().read(size)


def _read_archive(archive: zipfile.ZipFile, origin: str, num_bytes: int, budget: Budget) -> object:
    """Read the pickle of an archive, and say where each storage lies."""
    members = {member.filename: member for member in archive.infolist()}
    pickles = [name for name in members if name.endswith("/data.pkl") and name.count("/") == 1]
    if any(name.endswith("/constants.pkl") for name in members):
        raise refusal(f"{origin} is a TorchScript program", "a file of torch.save")
    if len(pickles) != 1:
        raise refusal(f"{origin} is a zip archive without data.pkl", "a file of torch.save")
    folder = pickles[0].removesuffix("data.pkl")

    def member(name: str) -> zipfile.ZipInfo:
        found = members.get(folder + name)
        if found is None:
            raise ValueError(f"no member {shown(name)}")
        # torch.save stores its members as they are; a packed one could unpack to anything
        if found.compress_type != zipfile.ZIP_STORED or found.file_size != found.compress_size:
            raise ValueError(f"a packed member {shown(name)}")
        if found.file_size > num_bytes:
            raise ValueError(f"a member {shown(name)} larger than the file")
        return found

    def content(found: zipfile.ZipInfo) -> bytearray:
        with archive.open(found) as file:
            return read_whole(file, found.file_size)

    def read_storage(found: zipfile.ZipInfo) -> bytearray:
        try:
            return content(found)
        except (OSError, *_DAMAGE) as error:
            raise _damaged(origin, error) from error

    storages: dict[str, Storage] = {}

    def declared(identity: object) -> Storage:
        storage = storage_of(identity)
        if storage.key not in storages:
            found = member(f"data/{storage.key}")
            if found.file_size != storage.nbytes:
                raise refusal(
                    f"{origin} declares a storage of {shown(storage.numel)} elements over "
                    f"{found.file_size} bytes",
                    "a storage as large as its data",
                )
            storage.read = lambda: read_storage(found)
            storages[storage.key] = storage
        return storages[storage.key]

    if f"{folder}byteorder" in members and content(member("byteorder")) != b"little":
        raise ValueError("storages of the other byte order")
    with archive.open(member("data.pkl")) as stream:
        calls = _calls(origin, budget)
        return Machine(origin, calls, budget=budget, persistent=declared).run(stream)


def _calls(origin: str, budget: Budget) -> dict[str, Callable[..., object]]:
    """Return what stands in for each name that these files need."""

    def to_set(items: object) -> set[object]:
        # of strings and numbers, as keys are
        names = instance_of(items, list)
        budget.hold_set(len(names))
        return {name for name in names if isinstance(name, str | int)}

    return {
        "argparse.Namespace": new_record,  # the options of a training run, which we do not need
        "collections.OrderedDict": new_record,
        "builtins.set": to_set,
        "__builtin__.set": to_set,
        **tensor_calls(origin),
        **array_calls(budget),
    }


def _unreadable(origin: str, error: OSError) -> WeightsError:
    return WeightsError(
        f"{origin} cannot be read ({error.strerror or error})",
        expected="a file of torch.save",
        fix="check the path",
    )


def _damaged(origin: str, error: Exception) -> WeightsError:
    detail = " ".join(ascii(str(error)).split())[:120]
    return WeightsError(
        f"{origin} breaks off or is damaged ({detail})",
        expected="a whole file of torch.save",
        fix="download the file again",
    )
