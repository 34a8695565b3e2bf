"""The images of a folder or zip, each of its own size, for metrics."""

import logging
import os

from torch import Tensor

from stylegan import distributed, images
from stylegan.data.check import (
    examine,
    fingerprint,
    formats_of,
    group_by_reason,
    preparation,
)
from stylegan.data.label_files import read_labels
from stylegan.data.readers import decode
from stylegan.data.sources.open import open_source
from stylegan.errors import DataError
from stylegan.image_size import ImageSize
from stylegan.progress import Counter

logger = logging.getLogger(__name__)


class Pictures:
    """The images of a folder or zip, sorted by name, each of its own size.

    Every image is decoded once at construction; files that cannot be decoded are left out with a
    warning. EXIF rotation is applied, and transparent pixels are composed on white. Images of other
    channels are seen as RGB, as of `PixelFormat.as_rgb`.

    Args:
        path: a folder (searched recursively), a zip, or another source of images.
        progress: called with the number of images decoded and their total.

    Attributes:
        path: of the folder or zip.
        fingerprint: as of an `ImageDataset`.
        num_channels: of the images as they are seen: 1 if all are grey, 3 if none is, else None.
        view: the rule by which others than grey and RGB are seen; None if there are none.
        sizes: the different (width, height) of the images, in pixels, sorted.
        formats: number of images in each file format.
        preparation: crop, filter and background used by `stylegan data prepare`; None for other
            sets.

    Raises:
        DataError: if no image can be decoded.
    """

    def __init__(self, path: str | os.PathLike[str], *, progress: Counter | None = None) -> None:
        self._source = open_source(path)
        self.path = str(path)
        entries = examine(self._source, progress=progress)
        bad = [(entry.name, entry.reason) for entry in entries if entry.reason is not None]
        for line in group_by_reason(bad) if distributed.is_main_process() else ():
            logger.warning("%s", line)
        usable = [entry for entry in entries if entry.reason is None]
        if not usable:
            raise DataError(f"{path} has no image that Pillow can decode; check the path")
        self._names = [entry.name for entry in usable]
        labels = read_labels(self._source)
        self.fingerprint = fingerprint(usable, None if labels is None else labels.by_name)
        is_grey = {entry.pixels.num_channels == 1 for entry in usable}
        self.num_channels = None if len(is_grey) > 1 else 1 if is_grey == {True} else 3
        others = (entry.pixels for entry in usable if not entry.pixels.is_plain)
        self.view = next((pixels.view for pixels in others), None)
        self.sizes = sorted({entry.size for entry in usable})
        self.formats = formats_of(usable)
        self.preparation = preparation(self._source)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._names)

    @property
    def size(self) -> ImageSize | None:
        """Height and width of the images if all are of one size, else None."""
        (width, height), *others = self.sizes
        return None if others else ImageSize(height, width)

    def seen(self, index: int) -> Tensor:
        """Return an image, as `__getitem__` does."""
        return self[index]

    def __getitem__(self, index: int) -> Tensor:
        """Return an image, uint8 [C, H, W], C 1 or 3.

        Raises:
            IndexError: if there is no such image.
            DataError: if the file has changed since construction and cannot be used.
        """
        name = self._names[index]
        try:
            return images.from_pil(decode(self._source.read(name)).image)
        except DataError as error:
            raise error.at(f"{name} in {self.path}") from error
