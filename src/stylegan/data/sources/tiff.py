"""The pages of a TIFF file."""

import io
import os
import threading
from pathlib import Path

from PIL import Image

from stylegan.data.readers import image_formats, one_line, page_numbers, unusable
from stylegan.data.sources.base import AbstractSource
from stylegan.errors import DataError

SUFFIXES = (".tif", ".tiff")


class TiffSource(AbstractSource):
    """The pages of a TIFF file, in order; smaller copies and masks of other pages are not images.

    Raises:
        DataError: if the file is damaged.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._image: Image.Image | None = None
        self._process = os.getpid()
        try:
            with Image.open(path, formats=image_formats()) as image:
                self._pages = page_numbers(image)
        except Exception as error:  # a damaged file can raise nearly any exception
            raise DataError(f"truncated or damaged ({one_line(error)})") from error
        super().__init__(path, [f"{number:06d}" for number in range(len(self._pages))])

    @staticmethod
    def matches(path: Path) -> bool:
        """Return whether a path has the ending of a TIFF file."""
        return path.suffix.lower() in SUFFIXES

    def read(self, name: str) -> bytes:
        """Return a page as a TIFF file; see `AbstractSource.read`."""
        buffer = io.BytesIO()
        with self._lock:
            try:
                if len(self._pages) == 1:
                    return self.path.read_bytes()
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
