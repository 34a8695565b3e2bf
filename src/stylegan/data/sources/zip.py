"""The image files of a zip archive."""

import lzma
import os
import re
import struct
import threading
import zipfile
import zlib
from pathlib import Path

from stylegan.data.readers import one_line, unusable
from stylegan.data.sources.files import AbstractFiles
from stylegan.errors import DataError

_MAX_BYTES = 2**29
"""Of an image file, uncompressed: images of `PIL.Image.MAX_IMAGE_PIXELS` have fewer."""
_DAMAGED = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError),
    *(struct.error, ValueError, IndexError),
)
"""What `zipfile` raises on damaged archives."""
_UNREADABLE = RuntimeError
"""What it raises on encrypted ones; its subclass on unknown versions and compressions."""


class ZipSource(AbstractFiles):
    """The files of a zip archive, such as one in the official layout.

    Raises:
        DataError: if the archive's directory cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        try:
            self._archive: zipfile.ZipFile | None = zipfile.ZipFile(path)
        except (*_DAMAGED, _UNREADABLE) as error:
            raise DataError(
                f"{path} is neither a folder nor a readable zip archive ({one_line(error)})"
            ) from error
        self._process = os.getpid()
        entries = {
            _relative(info.filename): info
            for info in self._archive.infolist()
            if not info.filename.endswith(("/", "\\"))
        }
        self._entries = {
            name: (info.filename, info.file_size, info.CRC) for name, info in entries.items()
        }
        super().__init__(path, entries)

    def _open(self) -> zipfile.ZipFile:
        # A forked process shares the file offset with its parent, so it opens the file again.
        with self._lock:
            if self._archive is None or self._process != os.getpid():
                self._archive, self._process = zipfile.ZipFile(self.path), os.getpid()
            return self._archive

    def __getstate__(self) -> dict[str, object]:
        """Leave out the lock and the open file."""
        return self.__dict__ | {"_lock": None, "_archive": None}

    def __setstate__(self, state: dict[str, object]) -> None:
        """Restore without an open file."""
        self.__dict__.update(state, _lock=threading.Lock())

    def close(self) -> None:
        """Close the file; the next read opens it again."""
        with self._lock:
            if self._archive is not None and self._process == os.getpid():
                self._archive.close()
            self._archive = None

    def read(self, name: str) -> bytes:
        """Return the bytes of a file; see `AbstractSource.read`."""
        stored_name, num_bytes, _ = self._entries[name]
        if num_bytes > _MAX_BYTES:
            raise unusable(f"too large (more than {_MAX_BYTES / 2**20:.0f} MiB)")
        try:
            return self._open().read(stored_name)
        except _DAMAGED as error:
            raise unusable(f"truncated or damaged in the zip ({one_line(error)})") from error
        except _UNREADABLE as error:
            raise unusable(f"unreadable in the zip ({one_line(error)})") from error

    def is_image(self, name: str) -> bool:
        """Take NPY files for images as well, each for one; see `AbstractFiles.is_image`."""
        return name.lower().endswith(".npy") or super().is_image(name)

    def start(self, name: str) -> bytes:
        """Return the first 16 bytes of a file; empty if they cannot be read."""
        try:
            with self._open().open(self._entries[name][0]) as file:
                return file.read(16)
        except (*_DAMAGED, _UNREADABLE):
            return b""

    def has(self, name: str) -> bool:
        """Return whether there is a file of this name."""
        return name in self._entries

    def stored_crc32(self, name: str) -> tuple[int, int] | None:
        """Return size in bytes and CRC-32 from the archive's directory; None for no entry."""
        return self._entries[name][1:] if name in self._entries else None


def _relative(name: str) -> str:
    """Return the name of an entry with forward slashes, and without `./`, `../` or a leading slash.

    Some programs of Windows write backslashes, which are folders all the same.
    """
    return re.sub(r"^(\.{0,2}/)+", "", name.replace("\\", "/"))
