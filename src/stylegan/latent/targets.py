"""The pictures that a user names, as the images that a network could have made."""

import functools
import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from stylegan import images
from stylegan.data.prepare import PrepareOptions, fit
from stylegan.data.readers import decode, image_extensions, open_source
from stylegan.errors import DataError
from stylegan.files import unique_name

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Target:
    """A picture, cropped and resized.

    Attributes:
        name: its file's name without the ending; a number follows where several have the same.
        path: of its file; for one in a folder or zip, with the name there.
        image: uint8 [C, R, R].
    """

    name: str
    path: str
    image: Tensor

    @property
    def sha256(self) -> str:
        """Checksum of the pixels."""
        return hashlib.sha256(self.image.contiguous().numpy().tobytes()).hexdigest()


def read_targets(
    paths: Sequence[Path], *, side: int, num_channels: int, num: int | None = None
) -> list[Target]:
    """Read pictures of any size: files, and those in folders and zips.

    The central square is resized with a Lanczos filter, as the official projector does.

    Args:
        paths: at least one.
        side: of the results, in pixels.
        num_channels: of the results: 1 for grey, 3 for RGB.
        num: take only so many of each folder or zip, spread evenly over it; None takes all.

    Raises:
        DataError: if a path holds no picture; those in folders and zips that cannot be used are
            passed over, with a warning, unless there is no other.
    """
    options = PrepareOptions(resolution=side)
    found: list[Target] = []
    taken: set[str] = set()
    for path in paths:
        num_before = len(found)
        for name, read in _contents(path, num):
            try:
                picture, _ = fit(decode(read()).image, options=options)
            except DataError as error:
                if path.suffix.lower() in image_extensions():
                    raise DataError(
                        f"{name}: {error.found}", expected=error.expected, fix=error.fix
                    ) from error
                logger.warning("skipped %s: %s", name, error.found)
                continue
            found.append(
                Target(
                    name=unique_name(Path(name).stem, taken),
                    path=name,
                    image=images.from_pil(picture.convert("L" if num_channels == 1 else "RGB")),
                )
            )
        if len(found) == num_before:
            raise DataError(
                f"no usable image in {path}",
                expected="pictures, or folders or zips of them",
                fix="check the path",
            )
    return found


def _contents(path: Path, num: int | None) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Yield the name of a picture, or of those in a folder or zip, and what reads it."""
    if path.is_file() and path.suffix.lower() in image_extensions():
        yield str(path), path.read_bytes
        return
    source = open_source(path)
    names = source.images
    if num is not None and num < len(names):
        names = tuple(names[index * len(names) // num] for index in range(num))
    for name in names:
        yield f"{path}/{name}", functools.partial(source.read, name)
