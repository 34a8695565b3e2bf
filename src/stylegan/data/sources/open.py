"""Opens whatever holds images."""

import os
from pathlib import Path

from stylegan.data.readers import image_extensions
from stylegan.data.sources import containers
from stylegan.data.sources.base import AbstractSource
from stylegan.data.sources.cifar import CifarSource
from stylegan.data.sources.folder import FolderSource, walk
from stylegan.data.sources.lsun import LsunSource
from stylegan.data.sources.mnist import MnistSource
from stylegan.data.sources.tfrecord import TFRecordSource
from stylegan.data.sources.zip import ZipSource
from stylegan.errors import ConfigError, DataError

_DATA_SETS = (TFRecordSource, LsunSource, CifarSource, MnistSource)


def open_source(path: str | os.PathLike[str], *, every: int = 1) -> AbstractSource:
    """Open a folder (recursively), a zip, or another source of images; docs/data.md lists them.

    Args:
        path: the folder or file.
        every: of videos, take every n-th frame.

    Raises:
        ConfigError: if the package for a format is not installed, or `every` is below 1, or above 1
            without a video.
        DataError: if there is nothing at `path`, or no source of images.
    """
    path = Path(path)
    if every < 1:
        raise ConfigError(f"every must be 1 or more, got {every}")
    source = _open(path, every)
    if every > 1 and not source.has_frames:
        raise ConfigError(f"--every {every} takes frames of videos, and {path} has no video")
    return source


def _open(path: Path, every: int) -> AbstractSource:
    check_exists(path)
    for kind in _DATA_SETS:
        if kind.matches(path):
            source: AbstractSource = kind(path)
            if path.is_dir():
                source.left_out = tuple(_images_beside(path))
            return source
    if path.is_dir():
        return FolderSource(path, every=every)
    try:
        container = containers.open_container(path, every=every)
    except DataError as error:
        raise error.at(str(path)) from error
    return ZipSource(path) if container is None else container


def _images_beside(folder: Path) -> list[tuple[str, str]]:
    """Return the images in the folder of another data set, and why they are left out."""
    suffixes = image_extensions() | set(containers.SUFFIXES)
    reason = "not an image of the data set in this folder (move it to another folder)"
    return [
        (name, reason)
        for name in sorted(walk(folder))
        if os.path.splitext(name)[1].lower() in suffixes
    ]


def check_exists(path: str | os.PathLike[str]) -> None:
    """Raise DataError unless there is a folder or a regular file at a path."""
    if not Path(path).is_dir() and not Path(path).is_file():
        raise DataError(f"{path} does not exist; name a folder of images, or a zip")
