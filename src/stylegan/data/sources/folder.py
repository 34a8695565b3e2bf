"""The images of a folder."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from stylegan.data.readers import unusable
from stylegan.data.sources.base import AbstractSource
from stylegan.data.sources.containers import open_container
from stylegan.data.sources.files import AbstractFiles
from stylegan.data.sources.npy import NumpySource
from stylegan.data.sources.tiff import TiffSource
from stylegan.errors import DataError, StyleganError


class FolderSource(AbstractFiles):
    """The images of a folder and of its subfolders; symbolic links to folders are followed.

    The images of a file that holds several, such as a video, are named `FILE/NUMBER`.

    Args:
        path: the folder.
        every: of videos, take every n-th frame.

    Raises:
        DataError: if a folder cannot be read.
    """

    def __init__(self, path: Path, *, every: int = 1) -> None:
        self.path = path
        super().__init__(path, walk(path))
        self._containers: dict[str, AbstractSource] = {}
        images: list[str] = []
        left_out: list[tuple[str, str]] = []
        for name in self.images:
            pages: list[str] = []
            with contextlib.suppress(DataError):  # reported when the file is decoded
                pages = self._expand(name, every)
            images += pages or [name]
        for name, reason in self.left_out:
            frames: list[str] = []
            try:
                frames = self._expand(name, every)
            except StyleganError as error:
                reason = str(error)
            images += frames
            left_out += [] if frames else [(name, reason)]
        self.images = tuple(sorted(images))
        self.left_out = tuple(sorted(left_out))

    def _expand(self, name: str, every: int) -> list[str]:
        """Return the names of the images in a file that can hold several; empty for other files."""
        if not (self.path / name).is_file():  # reading a named pipe would block forever
            return []
        container = open_container(self.path / name, every=every)
        if container is None:
            return []
        if isinstance(container, TiffSource | NumpySource) and len(container.images) == 1:
            return [name]
        if not container.images:
            raise unusable("empty")
        self._containers[name] = container
        return [f"{name}/{inner}" for inner in container.images]

    @property
    def has_frames(self) -> bool:
        """Whether there is a video."""
        return any(container.has_frames for container in self._containers.values())

    def read(self, name: str) -> bytes:
        """Return the bytes of a file, or of an image in it; see `AbstractSource.read`."""
        file, _, inner = name.rpartition("/")
        if file in self._containers:
            return self._containers[file].read(inner)
        if not (self.path / name).is_file():
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


def walk(path: Path) -> Iterator[str]:
    """Yield the names of all files, relative and with forward slashes.

    Raises:
        DataError: if a folder cannot be read.
    """

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
