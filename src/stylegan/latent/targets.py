"""Images to be projected, in the size and channels of a network."""

import functools
import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from stylegan import images
from stylegan.data.array_files import convert
from stylegan.data.prepare import PrepareOptions, fit, fit_stored
from stylegan.data.readers import (
    decode,
    image_extensions,
    is_image_start,
    read_raster,
    reading_for,
)
from stylegan.data.sources.open import open_source
from stylegan.errors import DataError
from stylegan.files import unique_name
from stylegan.image_size import ImageSize
from stylegan.pixel_format import PixelFormat

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Target:
    """An image to be projected.

    Attributes:
        name: the file's name without its suffix; a number follows if several have the same.
        path: of the file; for one in a folder or zip, with the name there.
        image: as it is stored, [C, H, W].
        pixels: its format.
    """

    name: str
    path: str
    image: Tensor
    pixels: PixelFormat

    @property
    def picture(self) -> Tensor:
        """The image as it is shown, uint8 [1, 3 or 4, R, R]."""
        return self.pixels.shown_stored(self.image)

    @property
    def sha256(self) -> str:
        """Checksum of the pixels."""
        return hashlib.sha256(self.image.contiguous().numpy().tobytes()).hexdigest()


def targets_of(stored: Tensor, *, size: ImageSize, pixels: PixelFormat) -> list[Target]:
    """Return images [N, C, H, W] or [C, H, W] as targets, named "image0" and so on.

    Raises:
        DataError: if they differ from the network's images in type or shape.
    """
    stacked = stored[None] if stored.ndim == 3 else stored
    expected = [pixels.num_channels, size.height, size.width]
    if stacked.dtype != pixels.dtype or list(stacked.shape[1:]) != expected or not len(stacked):
        raise DataError(
            f"images must be {pixels.depth} {['N', *expected]}, got {stored.dtype} "
            f"{list(stored.shape)}"
        )
    return [
        Target(name=f"image{index}", path=f"image {index}", image=image, pixels=pixels)
        for index, image in enumerate(stacked.cpu())
    ]


def read_targets(
    paths: Sequence[Path], *, size: ImageSize, pixels: PixelFormat, num: int | None = None
) -> list[Target]:
    """Read images of any size: files, and those in folders and zips.

    The center, in the proportions of the network, is resized with a Lanczos filter, as the official
    projector does.

    Args:
        paths: at least one.
        size: height and width of the results.
        pixels: format of the results, as of the network. RGB networks get transparent images
            composed on white.
        num: take only this many of each folder or zip, at even intervals; None takes all.

    Raises:
        DataError: if a path holds no usable image. Unusable ones in folders and zips are skipped
            with a warning.
    """
    options = PrepareOptions(resolution=size.stored)
    targets: list[Target] = []
    taken: set[str] = set()
    for path in paths:
        num_before = len(targets)
        for name, read in _contents(path, num):
            try:
                image = _read_target(read(), pixels, options)
            except DataError as error:
                if name == str(path):
                    raise DataError(
                        f"{name}: {error.message}", expected=error.expected, fix=error.fix
                    ) from error
                logger.warning("skipped %s: %s", name, error.message)
                continue
            targets.append(
                Target(
                    name=unique_name(Path(name).stem, taken),
                    path=name,
                    image=image,
                    pixels=pixels,
                )
            )
        if len(targets) == num_before:
            raise DataError(f"{path} holds no usable image")
    return targets


def _read_target(data: bytes, pixels: PixelFormat, options: PrepareOptions) -> Tensor:
    """Decode and fit an image, in the format of a network."""
    if pixels.is_plain:
        image, _ = fit(decode(data).image, options=options)
        return images.from_pil(image.convert("L" if pixels.num_channels == 1 else "RGB"))
    raster = read_raster(data, reading_for(pixels))
    try:
        stored = convert(raster.stored, raster.pixels, pixels)
    except ValueError as error:
        raise DataError(f"the network has images of {pixels} ({error})") from error
    return fit_stored(stored, pixels, options=options)[0]


def _contents(path: Path, num: int | None) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Yield the name of each image at a path, and a function that reads it."""
    if _is_image(path):
        yield str(path), path.read_bytes
        return
    source = open_source(path)
    names = source.images
    if path.suffix.lower() == ".npy" and len(names) == 1:
        yield str(path), path.read_bytes
        return
    if num is not None and num < len(names):
        names = tuple(names[index * len(names) // num] for index in range(num))
    for name in names:
        yield f"{path}/{name}", functools.partial(source.read, name)


def _is_image(path: Path) -> bool:
    """Decide by the extension of a file, without one by its content."""
    if not path.is_file():
        return False
    if path.suffix:
        return path.suffix.lower() in image_extensions()
    with path.open("rb") as file:
        return is_image_start(file.read(16))
