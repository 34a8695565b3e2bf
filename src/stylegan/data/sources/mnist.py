"""MNIST and sets in its format IDX, such as Fashion-MNIST.

Source: the description of the format by LeCun, Cortes and Burges.
"""

import gzip
import logging
import math
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stylegan import distributed
from stylegan.data.labels import Labels
from stylegan.data.readers import one_line
from stylegan.data.sources.arrays import AbstractArraySource, row_labels
from stylegan.errors import DataError

logger = logging.getLogger(__name__)

_TRAINING_SET = ("train-images-idx3-ubyte", "train-images.idx3-ubyte")
_KINDS = (("images-idx3", "labels-idx1"), ("images.idx3", "labels.idx1"))
_MAX_BYTES = 1 << 30


class MnistSource(AbstractArraySource):
    """The images of an IDX file, or of the training set in a folder, in memory.

    Images of 28x28 are padded with black to 32x32, as the official tool does. The labels are in the
    file beside the images.

    Raises:
        DataError: if the file is damaged.
    """

    def __init__(self, path: Path) -> None:
        file = _training_file(path) if path.is_dir() else path
        assert file is not None  # `matches` found it
        self._file = file
        super().__init__(path, _read_idx(file, num_dimensions=3))
        self._labels = self._read_labels()

    @staticmethod
    def matches(path: Path) -> bool:
        """Return whether a path is an IDX file of images, or a folder with a training set."""
        if path.is_dir():
            return _training_file(path) is not None
        return any(kind in path.name for kind, _ in _KINDS)

    @property
    def labels(self) -> Labels | None:
        """The class of each image; None if the file of labels is missing or does not fit."""
        return self._labels

    def load(self) -> NDArray[np.uint8]:
        """Return the pixels, uint8 [N, H, W]; see `AbstractArraySource.load`."""
        return _read_idx(self._file, num_dimensions=3)

    def pixels(self, row: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return an image, uint8 [H, W]."""
        return np.pad(row, 2) if row.shape == (28, 28) else row

    def _read_labels(self) -> Labels | None:
        name = self._file.name
        for kind, kind_of_labels in _KINDS:
            name = name.replace(kind, kind_of_labels)
        stem = name.removesuffix(".gz")
        for path in (self._file.with_name(stem), self._file.with_name(f"{stem}.gz")):
            if path.is_file():
                try:
                    return row_labels(_read_idx(path, num_dimensions=1), self.images)
                except (DataError, ValueError) as error:
                    if distributed.is_main_process():
                        logger.warning("labels not used: %s (%s)", path, one_line(error))
        return None


def _training_file(folder: Path) -> Path | None:
    names = (f"{name}{suffix}" for name in _TRAINING_SET for suffix in ("", ".gz"))
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _read_idx(path: Path, *, num_dimensions: int) -> NDArray[np.uint8]:
    """Return the array of bytes in an IDX file, which may be compressed.

    The format is two zeros, the code of the type (8: bytes), the number of dimensions, their sizes
    as big-endian 32-bit integers, and the data.
    """
    try:
        with (gzip.open if path.suffix.lower() == ".gz" else open)(path, "rb") as file:
            magic = file.read(4)
            if magic != bytes([0, 0, 8, num_dimensions]):
                raise DataError(
                    f"{path} is not an IDX file of bytes in {num_dimensions} dimensions"
                )
            shape = struct.unpack(f">{num_dimensions}I", file.read(4 * num_dimensions))
            num_bytes = math.prod(shape)
            if num_bytes > _MAX_BYTES:
                raise DataError(f"{path} declares {num_bytes} bytes, more than {_MAX_BYTES}")
            data = file.read(num_bytes + 1)
    except (OSError, EOFError, zlib.error, struct.error) as error:
        raise DataError(
            f"{path} is truncated or damaged ({one_line(error)})", fix="download it again"
        ) from error
    if len(data) != num_bytes:
        found = f"{len(data)} bytes" if len(data) < num_bytes else f"more than {num_bytes} bytes"
        raise DataError(
            f"{path} is truncated or damaged ({found} for {'x'.join(map(str, shape))})",
            fix="download it again",
        )
    return np.frombuffer(data, np.uint8).reshape(shape)
