"""Images to be projected, in the size and channels of a network."""

import functools
import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from stylegan import images
from stylegan.data.prepare import PrepareOptions, fit
from stylegan.data.readers import decode, image_extensions, is_image_start
from stylegan.data.sources.open import open_source
from stylegan.errors import DataError
from stylegan.files import unique_name
from stylegan.image_size import ImageSize

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Target:
    """An image to be projected.

    Attributes:
        name: the file's name without its suffix; a number follows if several have the same.
        path: of the file; for one in a folder or zip, with the name there.
        image: uint8 [C, H, W].
    """

    name: str
    path: str
    image: Tensor

    @property
    def sha256(self) -> str:
        """Checksum of the pixels."""
        return hashlib.sha256(self.image.contiguous().numpy().tobytes()).hexdigest()


def targets_of(pixels: Tensor, *, size: ImageSize, num_channels: int) -> list[Target]:
    """Return images [N, C, H, W] or [C, H, W] as targets, named "image0" and so on.

    Raises:
        DataError: if they are not uint8, or differ from the network's images in shape.
    """
    stacked = pixels[None] if pixels.ndim == 3 else pixels
    expected = [num_channels, size.height, size.width]
    if stacked.dtype != torch.uint8 or list(stacked.shape[1:]) != expected or not len(stacked):
        raise DataError(
            f"images must be uint8 {['N', *expected]}, got {pixels.dtype} {list(pixels.shape)}"
        )
    return [
        Target(name=f"image{index}", path=f"image {index}", image=image)
        for index, image in enumerate(stacked.cpu())
    ]


def read_targets(
    paths: Sequence[Path], *, size: ImageSize, num_channels: int, num: int | None = None
) -> list[Target]:
    """Read images of any size: files, and those in folders and zips.

    The center, in the proportions of the network, is resized with a Lanczos filter, as the official
    projector does.

    Args:
        paths: at least one.
        size: height and width of the results.
        num_channels: of the results: 1 for grey, 3 for RGB.
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
                image, _ = fit(decode(read()).image, options=options)
            except DataError as error:
                if _is_image(path):
                    raise DataError(
                        f"{name}: {error.message}", expected=error.expected, fix=error.fix
                    ) from error
                logger.warning("skipped %s: %s", name, error.message)
                continue
            targets.append(
                Target(
                    name=unique_name(Path(name).stem, taken),
                    path=name,
                    image=images.from_pil(image.convert("L" if num_channels == 1 else "RGB")),
                )
            )
        if len(targets) == num_before:
            raise DataError(f"{path} holds no usable image")
    return targets


def _contents(path: Path, num: int | None) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Yield the name of each image at a path, and a function that reads it."""
    if _is_image(path):
        yield str(path), path.read_bytes
        return
    source = open_source(path)
    names = source.images
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
