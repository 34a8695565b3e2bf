"""The one owner of writing files: whole or not at all, and on the disk when it returns."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import IO


def write_atomic(path: str | os.PathLike[str], content: bytes | str) -> None:
    """Write a file under a temporary name and move it to its place; text as UTF-8.

    A reader finds the old file or the new one. Missing folders are made.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    write_atomic_by(path, lambda file: file.write(data))


def write_atomic_by(path: str | os.PathLike[str], write: Callable[[IO[bytes]], object]) -> None:
    """Write a file as `write_atomic` does, through a function that takes the open file.

    Where it fails, as on a full disk, the temporary file is removed and the old one stays.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
