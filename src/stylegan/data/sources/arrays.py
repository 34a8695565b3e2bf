"""Images and labels that are rows of arrays."""

import io
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stylegan.data.labels import Label, Labels


def encode(pixels: NDArray[np.uint8]) -> bytes:
    """Encode uint8 [H, W] or [H, W, C], C 1, 3 or 4, as an image file.

    The formats PGM and PPM are not compressed: encoding is fast, and the bytes do not depend on the
    version of zlib. Only PNG stores an alpha channel.
    """
    image = Image.fromarray(
        pixels[:, :, 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels
    )
    buffer = io.BytesIO()
    image.save(buffer, format="PNG" if image.mode == "RGBA" else "PPM")
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
