"""Files that hold several images, by themselves or among the images of a folder."""

from pathlib import Path

from stylegan.data.sources import npy, tiff, video
from stylegan.data.sources.base import AbstractSource
from stylegan.data.sources.npy import NumpySource
from stylegan.data.sources.tiff import TiffSource
from stylegan.data.sources.video import VideoSource

SUFFIXES = (*npy.SUFFIXES, *tiff.SUFFIXES, *video.SUFFIXES)


def open_container(path: Path, *, every: int = 1) -> AbstractSource | None:
    """Open a video, a TIFF file, or a file of NumPy; None for other files.

    Args:
        path: the file.
        every: of a video, take every n-th frame.

    Raises:
        ConfigError: if the package for videos is not installed.
        DataError: if the file is damaged, or holds no images. The message does not name the file.
    """
    if VideoSource.matches(path):
        return VideoSource(path, every=every)
    if TiffSource.matches(path):
        return TiffSource(path)
    return NumpySource(path) if NumpySource.matches(path) else None
