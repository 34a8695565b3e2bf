"""The pages of a TIFF file."""

import io
import os
import threading
from pathlib import Path

import tifffile
from PIL import Image, UnidentifiedImageError

from stylegan.data.array_files import is_part, tiff_page
from stylegan.data.readers import (
    has_deep_color,
    image_formats,
    one_line,
    page_numbers,
    unusable,
)
from stylegan.data.sources.base import AbstractSource
from stylegan.errors import DataError
from stylegan.files import npy_bytes

SUFFIXES = (".tif", ".tiff")
_WHOLE_MODES = frozenset({"1", "L", "P", "LA", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "I;16B"})
"""Modes of Pillow that hold the pixels of a page without loss."""


class TiffSource(AbstractSource):
    """The pages of a TIFF file, in order; smaller copies and masks of other pages are not images.

    Raises:
        DataError: if the file is damaged.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._image: Image.Image | None = None
        self._process = os.getpid()
        self._is_array = False
        try:
            self._pages = self._read_pages(path)
        except Exception as error:  # a damaged file can raise nearly any exception
            raise DataError(f"truncated or damaged ({one_line(error)})") from error
        super().__init__(path, [f"{number:06d}" for number in range(len(self._pages))])

    def _read_pages(self, path: Path) -> list[int]:
        """Return the pages that are images; those that Pillow cannot read are read as arrays."""
        try:
            with Image.open(path, formats=image_formats()) as image:
                self._is_array = image.mode not in _WHOLE_MODES or has_deep_color(image)
                return page_numbers(image)
        except UnidentifiedImageError:
            self._is_array = True
            with tifffile.TiffFile(path) as file:
                return [number for number, page in enumerate(file.pages) if not is_part(page)]

    @staticmethod
    def matches(path: Path) -> bool:
        """Return whether a path has the ending of a TIFF file."""
        return path.suffix.lower() in SUFFIXES

    def read(self, name: str) -> bytes:
        """Return a page as a TIFF or NPY file; see `AbstractSource.read`."""
        buffer = io.BytesIO()
        with self._lock:
            try:
                if len(self._pages) == 1:
                    return self.path.read_bytes()
                if self._is_array:
                    with tifffile.TiffFile(self.path) as file:
                        return npy_bytes(tiff_page(file, self._pages[int(name)])[0])
                image = self._open()
                image.seek(self._pages[int(name)])
                image.save(buffer, format="TIFF", compression="raw")
            except MemoryError:
                raise
            except Exception as error:
                self._close()
                raise unusable(f"truncated or damaged ({one_line(error)})") from error
        return buffer.getvalue()

    def _open(self) -> Image.Image:
        # The positions of the pages are found once. A forked process shares the file offset with
        # its parent, so it opens the file again.
        if self._process != os.getpid():
            self._close()
        if self._image is None:
            self._image = Image.open(self.path, formats=image_formats())
            self._process = os.getpid()
        return self._image

    def _close(self) -> None:
        if self._image is not None:
            self._image.close()
        self._image = None

    def __del__(self) -> None:
        self._close()

    def __getstate__(self) -> dict[str, object]:
        """Leave out the lock and the open file."""
        return self.__dict__ | {"_lock": None, "_image": None}

    def __setstate__(self, state: dict[str, object]) -> None:
        """Restore without an open file."""
        self.__dict__.update(state, _lock=threading.Lock())
