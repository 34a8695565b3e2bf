"""Opens whatever holds images."""

import os
from pathlib import Path

from stylegan.data.sources.base import AbstractSource
from stylegan.data.sources.folder import FolderSource
from stylegan.data.sources.zip import ZipSource
from stylegan.errors import DataError


def open_source(path: str | os.PathLike[str]) -> AbstractSource:
    """Open a folder (recursively) or a zip.

    Raises:
        DataError: if there is nothing at `path`, or neither of the two.
    """
    path = Path(path)
    if path.is_dir():
        return FolderSource(path)
    if path.is_file():
        return ZipSource(path)
    raise DataError(f"{path} does not exist; name a folder of images, or a zip")
