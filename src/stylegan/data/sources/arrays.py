"""Images and labels that are rows of arrays."""

import abc
import io
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stylegan.data.labels import Label, Labels
from stylegan.data.sources.base import AbstractSource
from stylegan.files import npy_bytes


class AbstractArraySource(AbstractSource):
    """Images that are rows of an array. Each process loads the array again when it needs it.

    Args:
        path: the folder or file.
        rows: the array.
    """

    def __init__(self, path: Path, rows: NDArray[Any]) -> None:
        super().__init__(path, row_names(len(rows)))
        self._rows: NDArray[Any] | None = rows
        self._lock = threading.Lock()

    @abc.abstractmethod
    def load(self) -> NDArray[Any]:
        """Return the array.

        Raises:
            DataError: if it cannot be read.
        """

    @abc.abstractmethod
    def pixels(self, row: NDArray[Any]) -> NDArray[Any]:
        """Return the pixels of an image from its row, [H, W] or [H, W, C]."""

    def read(self, name: str) -> bytes:
        """Return an image as the bytes of a file; see `AbstractSource.read`."""
        with self._lock:
            if self._rows is None:
                self._rows = self.load()
        return encode(self.pixels(self._rows[int(name)]))

    def __getstate__(self) -> dict[str, object]:
        """Leave out the array and the lock."""
        return self.__dict__ | {"_rows": None, "_lock": None}

    def __setstate__(self, state: dict[str, object]) -> None:
        """Restore without the array."""
        self.__dict__.update(state, _lock=threading.Lock())


def encode(pixels: NDArray[Any]) -> bytes:
    """Encode [H, W] or [H, W, C] as an image file.

    For uint8 it is PGM or PPM, which are not compressed: encoding is fast, and the bytes do not
    depend on the version of zlib. Other types and numbers of channels are stored as NPY.
    """
    if pixels.dtype != np.uint8 or (pixels.ndim == 3 and pixels.shape[2] not in (1, 3)):
        return npy_bytes(np.ascontiguousarray(pixels))
    image = Image.fromarray(
        pixels[:, :, 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels
    )
    buffer = io.BytesIO()
    image.save(buffer, format="PPM")
    return buffer.getvalue()


def row_names(num: int) -> list[str]:
    """Return a name for each row: its index, in eight digits."""
    return [f"{index:08d}" for index in range(num)]


def row_labels(
    values: NDArray[Any], names: Sequence[str], *, classes: Sequence[str] = ()
) -> Labels | None:
    """Return the labels of images from the rows of an array; None if it has no columns.

    Whole numbers [N] or [N, 1] and one-hot vectors [N, D] are classes, other numbers [N, D] are
    vectors.

    Args:
        values: numbers, [N] or [N, D].
        names: of the images, N.
        classes: the names of the classes, by number; empty if they are not known.

    Raises:
        ValueError: if the array has another shape, or does not hold numbers.
    """
    if values.dtype.kind not in "buif" or values.ndim not in (1, 2) or len(values) != len(names):
        raise ValueError(f"{values.dtype} {list(values.shape)} for {len(names)} images")
    rows = values.reshape(len(values), -1) if len(values) else values[:, None]
    if rows.shape[1] == 0 or not len(rows):
        return None
    labels = dict(zip(names, _labels(rows), strict=True))
    return Labels(by_name=labels, classes=tuple(classes))


def _labels(rows: NDArray[Any]) -> Iterator[Label]:
    if rows.shape[1] == 1 and np.array_equal(rows, np.trunc(rows)):
        return (int(value) for value in rows[:, 0])
    is_binary = np.array_equal(rows, rows.astype(bool))
    if rows.shape[1] > 1 and is_binary and (rows.sum(axis=1) == 1).all():
        return (int(value) for value in rows.argmax(axis=1))
    return (tuple(row) for row in rows.astype(np.float64).tolist())
