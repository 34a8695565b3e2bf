"""The one owner of writing files: whole or not at all, and on the disk when it returns."""

import errno
import hashlib
import os
import secrets
import shutil
from collections.abc import Callable
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

    A reader finds the old file or the new one. Missing folders are made.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    write_atomic_by(path, lambda file: file.write(data))


def append_lines(path: str | os.PathLike[str], text: str) -> None:
    """Append whole lines to a text file, in one write; they are on the disk when this returns.

    A last line that was cut off, as by a full disk, ends here, and spoils no other. Missing folders
    are made.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        is_cut = False
        if file.seek(0, os.SEEK_END) > 0:
            file.seek(-1, os.SEEK_END)
            is_cut = file.read(1) != b"\n"
        file.write((b"\n" if is_cut else b"") + text.encode("utf-8"))
        file.flush()
        os.fsync(file.fileno())


def write_atomic_by(path: str | os.PathLike[str], write: Callable[[IO[bytes]], object]) -> None:
    """Write a file as `write_atomic` does, through a function that takes the open file.

    Where it fails, as on a full disk, the temporary file is removed and the old one stays.
    """

    def fill(temporary: Path) -> None:
        with temporary.open("wb") as file:
            write(file)

    write_atomic_at(path, fill)


def write_atomic_at(path: str | os.PathLike[str], write: Callable[[Path], object]) -> None:
    """Write a file as `write_atomic_by` does, through a function that takes a temporary path.

    For libraries that open files themselves.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # a name of its own, as two processes may write the same file
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        write(temporary)
        _flush(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def new_array(
    path: str | os.PathLike[str], *, shape: tuple[int, ...], dtype: DTypeLike
) -> NDArray[Any]:
    """Make a `.npy` file of zeros whose room on the disk is reserved, and map it for writing.

    Without the reservation, a disk that is full later kills the process that writes.

    Raises:
        OSError: if there is no room.
    """
    array = np.lib.format.open_memmap(path, mode="w+", shape=shape, dtype=dtype)
    if hasattr(os, "posix_fallocate"):  # of Linux
        with open(path, "r+b") as file:
            size = os.fstat(file.fileno()).st_size
            try:
                os.posix_fallocate(file.fileno(), 0, size)
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                    raise OSError(error.errno, error.strerror, str(path)) from error
                # a file system that cannot reserve
    return array


def replace_folder(folder: Path, temporary: Path) -> None:
    """Put a folder of files, written beside it under another name, in the place of `folder`.

    No system call that Python has swaps two folders. Between the two renames the old one stands
    beside its place, under a name that starts with a dot.
    """
    _flush(*temporary.iterdir(), temporary)
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    temporary.rename(folder)
    _flush(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def _flush(*paths: Path) -> None:
    """Make files, or a folder's list of names, reach the disk."""
    for path in paths:
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except PermissionError:  # Windows opens no folders
            continue
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
