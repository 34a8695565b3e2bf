"""CIFAR-10 and CIFAR-100 in the versions for Python.

A batch is a pickle of a dictionary: `data`, uint8 [N, 3072], are the pixels of images [3, 32, 32],
`labels` or `fine_labels` their classes. As in the official tool, test batches are not read.

Source: Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images", and the page of
the data sets.
"""

import contextlib
import io
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stylegan.data.labels import Labels
from stylegan.data.readers import one_line
from stylegan.data.sources.arrays import AbstractArraySource, row_labels
from stylegan.errors import DataError, WeightsError
from stylegan.interop.arrays import Array, array_calls
from stylegan.interop.restricted import Budget, Machine

# The files with images of the training set, in order, and the file with the names of classes.
_CIFAR10 = ([f"data_batch_{number}" for number in range(1, 6)], "batches.meta")
_CIFAR100 = (["train"], "meta")
_LABELS = ("labels", "fine_labels")
_CLASSES = ("label_names", "fine_label_names")
_SHAPE = (3, 32, 32)
_MAX_BYTES = 200 << 20  # of a file; CIFAR-100 has one of 155 MB
_ARCHIVES = (".tar.gz", ".tgz", ".tar")


class CifarSource(AbstractArraySource):
    """The training images of an archive, or of the folder of its files, in memory.

    Raises:
        DataError: if a file is missing or damaged.
    """

    def __init__(self, path: Path) -> None:
        rows, labels, classes = _load(path)
        super().__init__(path, rows)
        self._labels = row_labels(labels, self.images, classes=classes)

    @staticmethod
    def matches(path: Path) -> bool:
        """Return whether a path is a tar archive, or a folder with the files of a CIFAR archive."""
        if path.is_dir():
            has_batch = any((path / name).is_file() for name in _CIFAR10[0])
            return has_batch or all((path / name).is_file() for name in ("train", "meta"))
        return path.name.lower().endswith(_ARCHIVES)

    @property
    def labels(self) -> Labels | None:
        """The class of each image, with the classes' names; of CIFAR-100 the 100 fine classes."""
        return self._labels

    def load(self) -> NDArray[np.uint8]:
        """Return the pixels, uint8 [N, 3072]; see `AbstractArraySource.load`."""
        return _load(self.path)[0]

    def pixels(self, row: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return an image, uint8 [32, 32, 3]."""
        return row.reshape(_SHAPE).transpose(1, 2, 0)


def _load(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64], list[str]]:
    """Return the pixels [N, 3072], the classes [N], and the names of the classes."""
    batches: dict[str, dict[object, object]] = {}
    wanted = {*_CIFAR10[0], _CIFAR10[1], *_CIFAR100[0], _CIFAR100[1]}
    try:
        for name, data in _files(path, wanted):
            batches[name] = _unpickle(data, origin=f"{name} of {path}")
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise DataError(
            f"{path} is truncated or damaged ({one_line(error)})", fix="download it again"
        ) from error
    names, meta = _CIFAR100 if "train" in batches else _CIFAR10
    missing = [name for name in names if name not in batches]
    if missing:
        raise DataError(
            f"{path} has no {', '.join(missing)}",
            expected="CIFAR-10 or CIFAR-100 in the version for Python",
            fix="extract other archives, and name the folder of their images",
        )
    pixels, labels = zip(
        *(_batch(batches[name], f"{name} of {path}") for name in names), strict=True
    )
    return np.concatenate(pixels), np.concatenate(labels), _class_names(batches.get(meta, {}))


def _files(path: Path, wanted: set[str]) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of those files of an archive or folder that are wanted."""
    if path.is_dir():
        for name in sorted(wanted):
            if (path / name).is_file():
                with (path / name).open("rb") as file:
                    yield name, file.read(_MAX_BYTES)
        return
    with tarfile.open(path) as archive:
        for member in archive:
            name = member.name.rpartition("/")[2]
            if name in wanted and member.isfile():
                content = archive.extractfile(member)
                assert content is not None  # it is a regular file
                yield name, content.read(_MAX_BYTES)


def _unpickle(data: bytes, *, origin: str) -> dict[object, object]:
    """Return the dictionary in a pickle, of which nothing is run."""
    budget = Budget(_MAX_BYTES, origin)
    machine = Machine(origin, array_calls(budget), budget=budget, max_bytes=_MAX_BYTES)
    try:
        content = machine.run(io.BytesIO(data))
    except WeightsError as error:
        raise DataError(error.message, fix="download the archive again") from error
    if not isinstance(content, dict):
        raise DataError(f"{origin} holds a {type(content).__name__}", expected="a dictionary")
    return content


def _batch(batch: dict[object, object], origin: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return the pixels [N, 3072] and classes [N] of a batch."""
    pixels, labels = batch.get("data"), next((batch[key] for key in _LABELS if key in batch), None)
    problem = "no array `data` and list of labels"
    if isinstance(pixels, Array) and isinstance(labels, list):
        with contextlib.suppress(ValueError):
            values: NDArray[np.uint8] = pixels.tensor().numpy()
            problem = f"{values.dtype} {list(values.shape)} and {len(labels)} labels"
            is_fitting = values.dtype == np.uint8 and values.shape == (len(labels), 3072)
            if is_fitting and all(isinstance(label, int) for label in labels):
                return values, np.array(labels, np.int64)
    raise DataError(f"{origin} has {problem}", expected="uint8 [N, 3072] and N classes")


def _class_names(meta: dict[object, object]) -> list[str]:
    names = next((meta[key] for key in _CLASSES if key in meta), None)
    return [str(name) for name in names] if isinstance(names, list) else []
