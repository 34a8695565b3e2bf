"""The image files of a folder."""

import os
from collections.abc import Iterator
from pathlib import Path

from stylegan.data.readers import unusable
from stylegan.data.sources.files import AbstractFiles
from stylegan.errors import DataError


class FolderSource(AbstractFiles):
    """The files of a folder and of its subfolders; symbolic links to folders are followed.

    Raises:
        DataError: if a folder cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        super().__init__(path, _walk(path))

    def read(self, name: str) -> bytes:
        """Return the bytes of a file; see `AbstractSource.read`."""
        if not (self.path / name).is_file():  # reading a named pipe would block forever
            raise unusable("unreadable (not a regular file)")
        try:
            return (self.path / name).read_bytes()
        except OSError as error:
            raise unusable(f"unreadable ({error.strerror})") from error

    def start(self, name: str) -> bytes:
        """Return the first 16 bytes of a file; empty if they cannot be read."""
        if not (self.path / name).is_file():
            return b""
        try:
            with (self.path / name).open("rb") as file:
                return file.read(16)
        except OSError:
            return b""

    def has(self, name: str) -> bool:
        """Return whether there is a file of this name."""
        return (self.path / name).is_file()


def _walk(path: Path) -> Iterator[str]:
    def refuse(error: OSError) -> None:
        raise DataError(f"{error.filename} cannot be read ({error.strerror})") from error

    visited: set[str] = set()
    for folder, subfolders, files in os.walk(path, onerror=refuse, followlinks=True):
        if os.path.realpath(folder) in visited:  # a link to a folder above
            subfolders.clear()
            continue
        visited.add(os.path.realpath(folder))
        for file in files:
            yield (Path(folder) / file).relative_to(path).as_posix()
