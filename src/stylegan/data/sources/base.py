"""What every source of images offers."""

import abc
from collections.abc import Sequence
from pathlib import Path

from stylegan.data.labels import Labels


class AbstractSource(abc.ABC):
    """Images under names. It can be pickled, and read from several threads.

    Args:
        path: the folder or file.
        images: names of the images, in the set's order.
        left_out: name of each other file, and why it is not used.

    Attributes:
        path: the folder or file.
        images: names of the images, in the set's order.
        left_out: name of each other file, and why it is not used. Files that are expected beside
            the images, such as `dataset.json`, are not listed.
    """

    def __init__(
        self, path: Path, images: Sequence[str], *, left_out: Sequence[tuple[str, str]] = ()
    ) -> None:
        self.path = path
        self.images = tuple(images)
        self.left_out = tuple(left_out)

    @abc.abstractmethod
    def read(self, name: str) -> bytes:
        """Return an image as the bytes of a file.

        Raises:
            DataError: if it cannot be read.
        """

    @property
    def labels(self) -> Labels | None:
        """Labels that are part of the source's format; None if there are none."""
        return None

    @property
    def has_frames(self) -> bool:
        """Whether images are frames of a video."""
        return False

    def stored_crc32(self, name: str) -> tuple[int, int] | None:
        """Return size in bytes and CRC-32 of a file; None if they are not stored."""
        return None

    def read_json(self, name: str) -> object:
        """Return the content of a JSON file beside the images, or None if there is no such file.

        Raises:
            DataError: if it is not JSON.
        """
        return None
