"""TFRecords of the official ProGAN, StyleGAN and StyleGAN2 code, read without TensorFlow.

A file holds the images of one resolution, `NAME-r02.tfrecords` to `NAME-r10.tfrecords` those of
4x4 to 1024x1024. Each record is a `tf.train.Example` with the features `shape`, three integers
(C, H, W), and `data`, the uint8 pixels. `NAME-rxx.labels` is a NumPy array of labels.

Source: the framing of TFRecord files and the definitions of `tf.train.Example` in the documentation
of TensorFlow, and the encoding of Protocol Buffers in its documentation.
"""

import functools
import logging
import math
import re
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from stylegan import distributed
from stylegan.data.labels import Labels
from stylegan.data.readers import one_line, unusable
from stylegan.data.sources.arrays import encode, row_labels, row_names
from stylegan.data.sources.base import AbstractSource
from stylegan.data.sources.crc32c import crc32c
from stylegan.errors import DataError

logger = logging.getLogger(__name__)

SUFFIXES = (".tfrecords", ".tfrecord")

_NAME = re.compile(r"(.*)-r(\d\d)\.tfrecords?")
_HEADER = struct.Struct("<QI")  # length of the data, and its checksum
_CHECKSUM = struct.Struct("<I")  # of the data, behind it


class TFRecordSource(AbstractSource):
    """The images of a TFRecord file, or of the file of the highest resolution in a folder.

    Raises:
        DataError: if the file is damaged, or its records are not images of these programs.
    """

    def __init__(self, path: Path) -> None:
        self._file = _largest(path) if path.is_dir() else path
        try:
            self._offsets, self._lengths = _index(self._file)
        except OSError as error:
            raise DataError(f"{self._file} cannot be read ({error.strerror})") from error
        super().__init__(path, row_names(len(self._offsets)))
        if self.images:
            self._check_features()

    @staticmethod
    def matches(path: Path) -> bool:
        """Return whether a path is a TFRecord file, or a folder that contains one."""
        if path.is_dir():
            return bool(_files(path))
        return path.suffix.lower() in SUFFIXES

    def read(self, name: str) -> bytes:
        """Return an image as PGM or PPM; see `AbstractSource.read`."""
        features = self._features(int(name))
        shape, data = features.get("shape"), features.get("data")
        if not isinstance(shape, list) or not isinstance(data, memoryview):
            raise unusable("not an image (the record has no features shape and data)")
        if len(shape) != 3 or shape[0] not in (1, 3) or math.prod(shape) != len(data):
            raise unusable(f"not an image (shape {shape} of {len(data)} bytes)")
        if 0 in shape:
            raise unusable("empty")
        return encode(np.frombuffer(data, np.uint8).reshape(shape).transpose(1, 2, 0))

    @functools.cached_property
    def labels(self) -> Labels | None:
        """The labels in the file beside the records; None, with a warning, if they do not fit."""
        match = _NAME.fullmatch(self._file.name)
        path = self._file.with_name(f"{match[1]}-rxx.labels") if match else None
        if path is None or not path.is_file():
            return None
        try:
            values = np.load(path, allow_pickle=False)
            return row_labels(np.asarray(values), self.images)
        except Exception as error:  # a damaged header can raise nearly any exception
            if distributed.is_main_process():
                logger.warning("labels not used: %s (%s)", path, one_line(error))
            return None

    def _features(self, index: int) -> dict[str, list[int] | memoryview]:
        """Return the features of a record that have integers or bytes, by name."""
        offset, length = self._offsets[index], self._lengths[index]
        try:
            with self._file.open("rb") as file:
                file.seek(offset + _HEADER.size)
                record = memoryview(file.read(length + _CHECKSUM.size))
        except OSError as error:
            raise unusable(f"unreadable ({error.strerror})") from error
        if len(record) < length + _CHECKSUM.size:
            raise unusable(f"truncated or damaged (record {index} at byte {offset} is cut off)")
        if _masked_crc(record[:length]) != _CHECKSUM.unpack(record[length:])[0]:
            raise unusable(
                f"truncated or damaged (wrong checksum of record {index} at byte {offset})"
            )
        try:
            return dict(_example(record[:length]))
        except (ValueError, IndexError) as error:
            raise unusable(
                f"not an image (record {index} at byte {offset} is no tf.train.Example)"
            ) from error

    def _check_features(self) -> None:
        """Raise DataError if the first record is intact, but not of these programs."""
        try:
            features = self._features(0)
        except DataError as error:
            if not error.message.startswith("not an image"):
                return  # reported when the image is read
            features = {}
        if not {"shape", "data"} <= features.keys():
            names = ", ".join(sorted(map(ascii, features))[:5]) or "none"
            raise DataError(
                f"{self._file} holds no images of ProGAN or StyleGAN: the first record has the "
                f"features {names}",
                expected="the features shape and data",
            )


def _largest(folder: Path) -> Path:
    """Return the file of the highest resolution; DataError if there are several sets."""
    files = _files(folder)
    matches = {file: _NAME.fullmatch(file.name) for file in files}
    sets = sorted({match[1] if match else file.name for file, match in matches.items()})
    if len(sets) > 1:
        raise DataError(
            f"{folder} holds several sets of TFRecords: {', '.join(sets[:5])}",
            fix="name one of the files",
        )
    return max(files, key=lambda file: int(match[2]) if (match := matches[file]) else 0)


def _files(folder: Path) -> list[Path]:
    files = (file for file in folder.glob("*.*") if file.suffix.lower() in SUFFIXES)
    return sorted(file for file in files if file.is_file())


def _index(path: Path) -> tuple[list[int], list[int]]:
    """Return the position of each record in bytes, and the length of its data.

    Raises:
        DataError: if a record is damaged so that the next one cannot be found.
    """
    offsets: list[int] = []
    lengths: list[int] = []
    num_bytes = path.stat().st_size
    offset = 0
    with path.open("rb") as file:
        while offset < num_bytes:
            file.seek(offset)
            header = file.read(_HEADER.size)
            place = f"record {len(offsets)} at byte {offset}"
            if len(header) < _HEADER.size:
                raise _damaged(path, f"{place} is cut off")
            length, checksum = _HEADER.unpack(header)
            if _masked_crc(header[:8]) != checksum:
                raise _damaged(path, f"wrong checksum of the length of {place}")
            end = offset + _HEADER.size + length + _CHECKSUM.size
            if end > num_bytes:
                raise _damaged(path, f"{place} is cut off")
            offsets.append(offset)
            lengths.append(length)
            offset = end
    return offsets, lengths


def _damaged(path: Path, reason: str) -> DataError:
    return DataError(
        f"{path} is a damaged TFRecord file ({reason})", fix="copy or download it again"
    )


def _masked_crc(data: bytes | memoryview) -> int:
    """Return the checksum in the form that TFRecord files store: rotated, plus a constant."""
    checksum = crc32c(data)
    return ((checksum >> 15 | checksum << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _example(message: memoryview) -> Iterator[tuple[str, list[int] | memoryview]]:
    """Yield the name and value of the features of a `tf.train.Example`.

    Features of floats are left out; of several byte strings, the last one is taken.
    """
    for features in _messages(message, 1):
        for entry in _messages(features, 1):
            name = b"".join(map(bytes, _messages(entry, 1))).decode()
            for feature in _messages(entry, 2):
                for values in _messages(feature, 1):
                    for value in _messages(values, 1):
                        yield name, value
                for values in _messages(feature, 3):
                    yield name, list(_integers(values))


def _messages(message: memoryview, number: int) -> Iterator[memoryview]:
    """Yield the values with this field number that are messages, texts or bytes."""
    for found, value in _fields(message):
        if found == number and isinstance(value, memoryview):
            yield value


def _integers(message: memoryview) -> Iterator[int]:
    """Yield the integers of an `Int64List`, packed or not."""
    for number, value in _fields(message):
        if number != 1:
            continue
        if isinstance(value, int):
            yield value
            continue
        position = 0
        while position < len(value):
            integer, position = _varint(value, position)
            yield integer


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield the number and value of each field of a message.

    Raises:
        ValueError, IndexError: if the bytes are not a message.
    """
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        number, wire_type = key >> 3, key & 7
        if wire_type == 0:
            value, position = _varint(message, position)
            yield number, value
            continue
        if wire_type == 2:
            length, position = _varint(message, position)
        elif wire_type in (1, 5):
            length = 8 if wire_type == 1 else 4
        else:
            raise ValueError(f"wire type {wire_type}")
        if position + length > len(message):
            raise ValueError("a field that is cut off")
        yield number, message[position : position + length]
        position += length


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    """Return an integer of variable length, and the position after it."""
    value = 0
    for shift in range(0, 70, 7):
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError("an integer of more than 10 bytes")
