"""Reader of files of torch.save, zip archives and the older format, that never runs their code."""

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
    quoted,
)
from stylegan.interop.shapes import refusal
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

SINGLE = "tensor"
"""Name of the tensor in a file that holds nothing else."""
_AVERAGES = (
    *("g_ema", "params_ema", "params", "generator_ema", "generator", "netG", "model"),
    *("state_dict", None),
)
"""Items where programs keep the averaged generator, the best first; None is the file itself."""
_PREFIXES = ("g_ema.", "generator_ema.")
"""Before the names of its tensors, where another generator has other prefixes."""
_ZIP_START = b"PK\x03\x04"
_MAX_DIRECTORY = 16 << 20  # bytes; a zip directory has about 100 for each tensor
# Errors of zipfile and our readers for damaged files.
_DAMAGE = (EOFError, LookupError, RuntimeError, TypeError, ValueError, zipfile.BadZipFile)
_MAX_NAME = 200  # characters of a tensor's name


@dataclass(frozen=True)
class TorchFile:
    """The content of a file of torch.save, with tensors read on demand.

    Args:
        origin: the file, for errors.
        num_bytes: size of the file.
        root: the saved dictionary; tensors in it are `StoredTensor`.
    """

    origin: str
    num_bytes: int
    root: Mapping[object, object]

    def has_tensors(self, key: str) -> bool:
        """Return whether an item is a dictionary with tensors."""
        value = self.root.get(key)
        return isinstance(value, dict) and any(
            isinstance(item, StoredTensor) for item in value.values()
        )

    def names(self, key: str | None) -> list[str]:
        """Return the names of the tensors in an item that is a dictionary; None is the file."""
        value = self.root if key is None else self.root.get(key)
        if not isinstance(value, dict):
            return []
        return [name for name, item in value.items() if isinstance(item, StoredTensor)]

    def find(self, name: str) -> tuple[str | None, str] | None:
        """Return which item holds a tensor of the averaged generator, and with which prefix.

        Args:
            name: of the tensor, without a prefix.

        Returns:
            The key of the item (None for the file itself) and the prefix; None if there is none.
        """
        for key in _AVERAGES:
            prefix = self.prefix(key, name)
            if prefix is not None:
                return key, prefix
        return None

    def prefix(self, key: str | None, name: str) -> str | None:
        """Return what stands before a tensor's name, and before all others of its network.

        Programs put the names of their modules there, such as `decoder.` (pSp, e4e) and
        `stylegan_decoder.` (GFPGAN); DataParallel adds `module.`, torch.compile `_orig_mod.`.

        Returns:
            With a dot at its end, or empty; None if there is no such tensor, or there are several
            and none has a prefix of the averaged generator.
        """
        names = [full for full in self.names(key) if f".{full}".endswith(f".{name}")]
        prefixes = [full.removesuffix(name) for full in names]
        known = [prefix for prefix in ("", *_PREFIXES) if prefix in prefixes]
        if known or len(prefixes) == 1:
            return (known or prefixes)[0]
        return None

    def place(self, key: str | None) -> str:
        """Return the file and the key of an item, for errors."""
        return self.origin if key is None else f"{self.origin} ({key})"

    def tensors(self, key: str | None, *, prefix: str = "") -> dict[str, Tensor]:
        """Read an item that is a dictionary of tensors.

        Args:
            key: of the item; None reads those tensors of the file itself that have the prefix.
            prefix: only tensors whose names start with it are read, and are returned without it.

        Raises:
            WeightsError: if it is not, or its tensors are larger than the file.
        """
        stored = {}
        try:
            content = self.root if key is None else instance_of(self.root.get(key), dict)
            for key_of_value, value in content.items():
                name: str = instance_of(key_of_value, str)
                if len(name) > _MAX_NAME:
                    raise TypeError("a name that is too long")
                is_other = key is None and not isinstance(value, StoredTensor)
                if name.startswith(prefix) and not is_other:
                    stored[name.removeprefix(prefix)] = instance_of(value, StoredTensor)
            # One budget for each item, as two items may share their tensors.
            return load_all(stored, num_bytes=self.num_bytes, origin=self.origin)
        except (TypeError, ValueError) as error:
            raise refusal(f"{self.origin} ({key}) holds {error}", "tensors by name") from error

    def tensor(self, key: str) -> Tensor:
        """Read an item that is a tensor; WeightsError if it is not."""
        value = self.root.get(key)
        if not isinstance(value, StoredTensor):
            raise refusal(f"{self.origin} has {quoted(value)} as {key}", "a tensor")
        return load_all({key: value}, num_bytes=self.num_bytes, origin=self.origin)[key]


def is_torch_file(path: Path) -> bool:
    """Return whether a file starts like one of torch.save, or another zip; never raises."""
    try:
        with path.open("rb") as file:
            start = file.read(len(LEGACY_START))
    except OSError:
        return False
    return start.startswith(_ZIP_START) or start == LEGACY_START


@contextmanager
def open_torch_file(path: str | os.PathLike[str]) -> Iterator[TorchFile]:
    """Open a file of torch.save; tensors can be read from it inside the context.

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
    """Read the saved dictionary, without the data of storages."""
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
    if isinstance(root, StoredTensor):
        root = {SINGLE: root}
    if not isinstance(root, dict):
        raise refusal(f"{origin} holds {quoted(root)}", "a dictionary of networks")
    return root


class _File(BoundedFile):
    """A file that reads at most a few megabytes at once, including a zip's directory."""

    def read(self, size: int | None = -1, /) -> bytes:
        """Read at most `size` bytes; ValueError if that is more than any valid file needs."""
        is_large = size is None or size < 0 or size > _MAX_DIRECTORY
        if is_large and self.num_bytes - self.tell() > _MAX_DIRECTORY:
            raise ValueError("a larger directory than such files have")
        return super().read(size)


def _read_archive(archive: zipfile.ZipFile, origin: str, num_bytes: int, budget: Budget) -> object:
    """Read the pickle of an archive, and locate each storage."""
    members = {member.filename: member for member in archive.infolist()}
    pickles = [name for name in members if name.endswith("/data.pkl") and name.count("/") == 1]
    if any(name.endswith("/constants.pkl") for name in members):
        raise refusal(f"{origin} is a TorchScript program", "a file of torch.save")
    if len(pickles) != 1:
        raise refusal(f"{origin} is a zip archive without data.pkl", "a file of torch.save")
    folder = pickles[0].removesuffix("data.pkl")

    def member(name: str) -> zipfile.ZipInfo:
        info = members.get(folder + name)
        if info is None:
            raise ValueError(f"no member {quoted(name)}")
        # torch.save never compresses; a compressed member could expand to any size.
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
            raise ValueError(f"a compressed member {quoted(name)}")
        if info.file_size > num_bytes:
            raise ValueError(f"a member {quoted(name)} larger than the file")
        return info

    def content(info: zipfile.ZipInfo) -> bytearray:
        with archive.open(info) as file:
            return read_whole(file, info.file_size)

    def read_storage(info: zipfile.ZipInfo) -> bytearray:
        try:
            return content(info)
        except (OSError, *_DAMAGE) as error:
            raise _damaged(origin, error) from error

    storages: dict[str, Storage] = {}

    def declared(identity: object) -> Storage:
        storage = storage_of(identity)
        if storage.key not in storages:
            info = member(f"data/{storage.key}")
            if info.file_size != storage.nbytes:
                raise refusal(
                    f"{origin} declares a storage of {quoted(storage.numel)} elements over "
                    f"{info.file_size} bytes",
                    "a storage as large as its data",
                )
            storage.read = lambda: read_storage(info)
            storages[storage.key] = storage
        return storages[storage.key]

    if f"{folder}byteorder" in members and content(member("byteorder")) != b"little":
        raise ValueError("storages of the other byte order")
    with archive.open(member("data.pkl")) as stream:
        calls = _calls(origin, budget)
        return Machine(origin, calls, budget=budget, persistent=declared).run(stream)


def _calls(origin: str, budget: Budget) -> dict[str, Callable[..., object]]:
    """Return the stand-ins for the names that these files need."""

    def to_set(items: object) -> set[object]:
        # Strings and integers only, as for keys.
        names = instance_of(items, list)
        budget.hold_set(len(names))
        return {name for name in names if isinstance(name, str | int)}

    return {
        "argparse.Namespace": new_record,  # options of a training run, not needed
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
    )


def _damaged(origin: str, error: Exception) -> WeightsError:
    detail = " ".join(ascii(str(error)).split())[:120]
    return WeightsError(
        f"{origin} is incomplete or damaged ({detail})",
        expected="a whole file of torch.save",
        fix="download the file again",
    )
