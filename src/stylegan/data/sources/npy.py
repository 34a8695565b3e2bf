"""Images in NumPy's files `.npy` and `.npz`."""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stylegan.data.labels import Labels
from stylegan.data.readers import one_line
from stylegan.data.sources.arrays import AbstractArraySource, row_labels
from stylegan.errors import DataError

SUFFIXES = (".npy", ".npz")

_CHANNELS = (1, 3, 4)
_MAX_BYTES = 1 << 30  # of the arrays in a .npz file, which are held in memory
_LAYOUTS = "[N, H, W, C], [N, C, H, W], [N, H, W], [H, W, C] or [H, W]"


class NumpySource(AbstractArraySource):
    """The images of an array: uint8, uint16 or floats, of any number of channels.

    A `.npy` file is mapped into memory. Of a `.npz` file, the only array of images is taken, or the
    only one with "train" in its name; the only other array with as many rows holds the labels.

    Raises:
        DataError: if there is no such array.
    """

    def __init__(self, path: Path) -> None:
        rows, labels = _read(path)
        super().__init__(path, rows)
        self._labels = None if labels is None else row_labels(labels, self.images)

    @staticmethod
    def matches(path: Path) -> bool:
        """Return whether a path has the ending of such a file."""
        return path.suffix.lower() in SUFFIXES

    @property
    def labels(self) -> Labels | None:
        """The labels in a `.npz` file; None if there are none."""
        return self._labels

    def load(self) -> NDArray[Any]:
        """Return the images, [N, H, W] or [N, H, W, C]; see `AbstractArraySource.load`."""
        return _read(self.path)[0]

    def pixels(self, row: NDArray[Any]) -> NDArray[Any]:
        """Return an image with its depth."""
        return row


def _read(path: Path) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Return images as [N, H, W] or [N, H, W, C], and labels as [N] or [N, D]."""
    try:
        if path.suffix.lower() == ".npz":
            images, labels = _choose(_load_npz(path))
        else:
            images, labels = np.load(path, mmap_mode="r", allow_pickle=False), None
    except DataError:
        raise
    except Exception as error:  # a damaged header can raise nearly any exception
        raise DataError(f"unreadable ({one_line(error)})") from error
    return _with_rows(images), labels


def _load_npz(path: Path) -> dict[str, NDArray[Any]]:
    with zipfile.ZipFile(path) as archive:
        num_bytes = sum(member.file_size for member in archive.infolist())
    if num_bytes > _MAX_BYTES:
        raise DataError(
            f"too large ({num_bytes / 1e9:.1f} GB in a .npz file are read at once)",
            fix="save the images as a .npy file, which is read in parts",
        )
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def _choose(
    arrays: Mapping[str, NDArray[Any]],
) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Return the array of images and that of their labels."""
    names = [name for name, array in arrays.items() if array.ndim > 2 and _problem(array) is None]
    if len(names) > 1:
        names = [name for name in names if "train" in name] or names
    if len(names) != 1:
        found = (
            ", ".join(f"{name} {_describe(array)}" for name, array in arrays.items()) or "no arrays"
        )
        raise DataError(
            f"not an image ({'several arrays' if names else 'no array'} of images among {found})",
            expected=f"one array {_LAYOUTS}",
            fix="save the images as a .npy file",
        )
    images = arrays[names[0]]
    others = [
        array
        for name, array in arrays.items()
        if name != names[0] and array.ndim in (1, 2) and len(array) == len(images)
    ]
    labels = others[0] if len(others) == 1 and others[0].dtype.kind in "buif" else None
    return images, labels


def _problem(array: NDArray[Any]) -> str | None:
    """Return why an array does not hold images; None if it does."""
    kind = array.dtype.kind
    if kind != "f" and not (kind == "u" and array.dtype.itemsize <= 2):
        return f"of {array.dtype}; expected uint8, uint16, or floats"
    shape = array.shape
    if array.ndim == 3 and shape[0] in (3, 4) and shape[2] not in _CHANNELS:
        return (
            f"{list(shape)}, which is one image [C, H, W] or {shape[0]} images [N, H, W]; "
            "save it with 4 axes"
        )
    if array.ndim not in (2, 3, 4) or 0 in shape[1:]:
        return f"{list(shape)}; expected {_LAYOUTS}"
    return None


def _with_rows(array: NDArray[Any]) -> NDArray[Any]:
    """Return images as [N, H, W] or [N, H, W, C].

    Four axes are [N, C, H, W] if the last is not 1, 3 or 4 and the second is, or is the smaller
    one. Three axes are one image [H, W, C] if the last is 1, 3 or 4, or if only the first two are
    equal and more than the last.

    Raises:
        DataError: if the array does not hold images.
    """
    if problem := _problem(array):
        raise DataError(f"not an image (an array {problem})")
    shape = array.shape
    if array.ndim == 2 or (array.ndim == 3 and _is_one_image(shape)):
        return array[None]
    if array.ndim == 4 and shape[3] not in _CHANNELS:
        is_channels_first = shape[1] in _CHANNELS or shape[1] < shape[3]
        return array.transpose(0, 2, 3, 1) if is_channels_first else array
    return array


def _is_one_image(shape: tuple[int, ...]) -> bool:
    height, width, channels = shape
    return channels in _CHANNELS or (height == width > channels)


def _describe(array: NDArray[Any]) -> str:
    return f"{array.dtype} {list(array.shape)}"
