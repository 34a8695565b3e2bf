"""Opens whatever holds images."""

import os
from pathlib import Path

from stylegan.data.sources.base import AbstractSource
from stylegan.data.sources.folder import FolderSource
from stylegan.data.sources.tfrecord import TFRecordSource
from stylegan.data.sources.zip import ZipSource
from stylegan.errors import DataError


def open_source(path: str | os.PathLike[str]) -> AbstractSource:
    """Open a folder (recursively), a zip, or a data set in one of the formats of docs/data.md.

    Raises:
        DataError: if there is nothing at `path`, or it is none of them.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path} does not exist; name a folder of images, or a zip")
    if TFRecordSource.matches(path):
        return TFRecordSource(path)
    return FolderSource(path) if path.is_dir() else ZipSource(path)
