"""What folders and zips have in common: image files under relative names."""

import abc
import json
import os
from collections.abc import Iterable
from pathlib import Path

from stylegan.data.readers import image_extensions, is_image_start, one_line
from stylegan.data.sources import lsun, npy, tfrecord, video
from stylegan.data.sources.base import AbstractSource
from stylegan.errors import DataError

LABELS_NAME = "dataset.json"
RECORD_NAME = "prepare.json"

# Files that operating systems add to folders and archives.
_SYSTEM_FILES = frozenset({"thumbs.db", "desktop.ini"})
_ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".7z", ".rar")


class AbstractFiles(AbstractSource):
    """Image files under relative names with forward slashes, sorted.

    Images have an image's file name extension, or none and an image's content. `dataset.json`,
    `prepare.json` and files of the operating system are passed over; all others are left out.

    Args:
        path: the folder or zip.
        names: of all files.
    """

    def __init__(self, path: Path, names: Iterable[str]) -> None:
        known = (LABELS_NAME, RECORD_NAME)
        names = sorted(
            name
            for name in names
            if not _is_system_file(name) and name.rpartition("/")[2] not in known
        )
        images = [name for name in names if self.is_image(name)]
        others = sorted(set(names) - set(images))
        super().__init__(path, images, left_out=[(name, _why_left_out(name)) for name in others])

    def is_image(self, name: str) -> bool:
        """Decide by the extension of a file, without one by its content."""
        if extension := os.path.splitext(name)[1].lower():
            return extension in image_extensions()
        return is_image_start(self.start(name))

    @abc.abstractmethod
    def start(self, name: str) -> bytes:
        """Return the first 16 bytes of a file; empty if they cannot be read."""

    @abc.abstractmethod
    def has(self, name: str) -> bool:
        """Return whether there is a file of this name."""

    def read_json(self, name: str) -> object:
        """Return the content of a JSON file; see `AbstractSource.read_json`."""
        if not self.has(name):
            return None
        try:
            content: object = json.loads(self.read(name))
        except DataError as error:
            raise error.at(f"{name} in {self.path}") from error
        except (ValueError, RecursionError) as error:
            raise DataError(f"{name} in {self.path} is not JSON ({one_line(error)})") from error
        return content


def _why_left_out(name: str) -> str:
    """Return why a file whose extension is that of no image format is left out."""
    if name.rpartition("/")[2] == lsun.FILE_NAME:
        return "not an image (an LMDB database; name its folder instead)"
    name = name.lower()
    if name.endswith(tfrecord.SUFFIXES):
        return "not an image (TFRecords; name this file instead)"
    if name.endswith((*npy.SUFFIXES, *video.SUFFIXES)):
        return "not an image (arrays and videos in a zip are not read; extract the zip)"
    if name.endswith(_ARCHIVES):
        return "not an image (an archive; extract it, or name it instead)"
    return "not an image (by its file name extension)"


def _is_system_file(name: str) -> bool:
    parts = name.split("/")
    return (
        parts[-1].lower() in _SYSTEM_FILES
        or "__MACOSX" in parts
        or any(part.startswith(".") for part in parts)
    )
