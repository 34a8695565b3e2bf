"""Writing files atomically and durably, and hashing them."""

import contextlib
import errno
import hashlib
import io
import itertools
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray


def file_sha256(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 digest of a file, in lower-case hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomic(path: str | os.PathLike[str], content: bytes | str) -> None:
    """Write a file under a temporary name and move it to its place; text as UTF-8.

    A reader finds either the old file or the new one, complete. Missing folders are created. The
    file is on the disk when this returns.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    write_atomic_by(path, lambda file: file.write(data))


def append_lines(path: str | os.PathLike[str], text: str) -> None:
    """Append complete lines to a text file, in one write; they are on the disk when this returns.

    If the last line of the file is incomplete, as after a full disk, a line break is added first.
    Missing folders are created.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        is_incomplete = False
        if file.seek(0, os.SEEK_END) > 0:
            file.seek(-1, os.SEEK_END)
            is_incomplete = file.read(1) != b"\n"
        file.write((b"\n" if is_incomplete else b"") + text.encode("utf-8"))
        file.flush()
        os.fsync(file.fileno())


def write_atomic_by(path: str | os.PathLike[str], write: Callable[[IO[bytes]], object]) -> None:
    """Write a file as `write_atomic` does, through a function that takes the open file."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        write(file)


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path to write a file at, which is then renamed to `path`.

    For libraries that open files themselves. If the block raises, such as on a full disk, the
    temporary file is removed, and an older file at `path` stays.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # a random name, as two processes may write the same file
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        flush_to_disk(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def unique_name(name: str, taken: set[str]) -> str:
    """Return `name`, or with a number after it if `taken` holds it; add the result to `taken`."""
    numbered = (name if number == 1 else f"{name}-{number}" for number in itertools.count(1))
    unique = next(candidate for candidate in numbered if candidate not in taken)
    taken.add(unique)
    return unique


def new_array(
    path: str | os.PathLike[str], *, shape: tuple[int, ...], dtype: DTypeLike
) -> NDArray[Any]:
    """Create a `.npy` file of zeros with its disk space reserved, memory-mapped for writing.

    Without the reservation, writing to the map on a full disk would kill the process.

    Raises:
        OSError: if there is not enough space.
    """
    array = np.lib.format.open_memmap(path, mode="w+", shape=shape, dtype=dtype)
    if hasattr(os, "posix_fallocate"):  # Linux
        with open(path, "r+b") as file:
            size = os.fstat(file.fileno()).st_size
            try:
                os.posix_fallocate(file.fileno(), 0, size)
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                    raise OSError(error.errno, error.strerror, str(path)) from error
                # otherwise the file system does not support reservation
    return array


def npy_bytes(array: NDArray[Any]) -> bytes:
    """Return an array as the bytes of a `.npy` file."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def replace_folder(folder: Path, temporary: Path) -> None:
    """Replace `folder` by the folder `temporary`, which lies beside it.

    Python has no system call that swaps two folders. Between the two renames the old folder has a
    hidden name, which starts with a dot.
    """
    flush_to_disk(*temporary.iterdir(), temporary)
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    temporary.rename(folder)
    flush_to_disk(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def flush_to_disk(*paths: Path) -> None:
    """Flush files, or the entries of a folder, to the disk."""
    for path in paths:
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except PermissionError:  # Windows cannot open folders
            continue
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def printable_name(name: str) -> str:
    """Return a file name with line breaks, control characters and invalid bytes escaped."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii")
        for letter in name
    )
