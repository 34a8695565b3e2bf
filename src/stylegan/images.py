"""Conversion between float images NCHW in [-1, 1] and uint8 images in 0..255, and image files."""

import io
import itertools
import os
from collections.abc import Sequence
from typing import IO

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from stylegan.files import write_atomic


def from_uint8(images: Tensor) -> Tensor:
    """Map uint8 [...] in 0..255 to float32 [...] in [-1, 1] by `u / 127.5 - 1`."""
    if images.dtype != torch.uint8:
        raise ValueError(f"from_uint8 takes uint8, got {images.dtype}")
    return images.to(torch.float32) / 127.5 - 1


def to_uint8(images: Tensor) -> Tensor:
    """Map float [...] nominally in [-1, 1] to uint8, by `floor(clamp(127.5 x + 128, 0, 255))`.

    Both official implementations round like this, and the metrics depend on it.
    """
    return (images.to(torch.float32) * 127.5 + 128).clamp(0, 255).to(torch.uint8)


def grid(images: Tensor, *, columns: int, padding: int = 0, fill: int = 255) -> Tensor:
    """Tile uint8 [N, C, H, W] row by row into one image, uint8 [C, H', W'].

    Args:
        images: uint8 [N, C, H, W].
        columns: number of columns.
        padding: pixels between images.
        fill: value of the padding and of cells without an image.
    """
    if images.dtype != torch.uint8 or images.ndim != 4:
        raise ValueError(f"grid takes uint8 [N, C, H, W], got {images.dtype} {list(images.shape)}")
    num, channels, height, width = images.shape
    rows = -(-num // columns)
    step_y, step_x = height + padding, width + padding
    tiled = images.new_full((channels, rows * step_y - padding, columns * step_x - padding), fill)
    for index, image in enumerate(images):
        y, x = (index // columns) * step_y, (index % columns) * step_x
        tiled[:, y : y + height, x : x + width] = image
    return tiled


def pil_image(image: Tensor) -> Image.Image:
    """Return uint8 [C, H, W] with 1 (gray), 3 (RGB) or 4 (RGBA) channels as a PIL image."""
    array: NDArray[np.uint8] = image.cpu().permute(1, 2, 0).contiguous().numpy()
    return Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)


def to_pil(images: Tensor) -> Image.Image | list[Image.Image]:
    """Return images as PIL images.

    Args:
        images: float in [-1, 1], as networks give them, or uint8 in 0..255: [C, H, W] or
            [N, C, H, W] with 1 (gray), 3 (RGB) or 4 (RGBA) channels, on any device.

    Returns:
        An image for [C, H, W], a list of images for [N, C, H, W].

    Raises:
        ValueError: if the shape or the dtype is another.
    """
    if images.ndim not in (3, 4) or images.shape[-3] not in (1, 3, 4):
        raise ValueError(
            "to_pil takes [C, H, W] or [N, C, H, W] with 1, 3 or 4 channels, got "
            f"{list(images.shape)}"
        )
    if images.dtype != torch.uint8 and not images.is_floating_point():
        raise ValueError(f"to_pil takes float or uint8, got {images.dtype}")
    pixels = images.detach()
    pixels = pixels if pixels.dtype == torch.uint8 else to_uint8(pixels)
    if pixels.ndim == 3:
        return pil_image(pixels)
    return [pil_image(image) for image in pixels]


def from_pil(image: Image.Image) -> Tensor:
    """Return a PIL image in mode L, RGB or RGBA as uint8 [C, H, W]."""
    array = np.array(image, dtype=np.uint8)
    array = array[:, :, None] if array.ndim == 2 else array
    return torch.from_numpy(np.ascontiguousarray(array.transpose(2, 0, 1)))


def read(path: str | os.PathLike[str] | IO[bytes]) -> Tensor:
    """Read an image file of `write` or `png_bytes` as uint8 [C, H, W]."""
    with Image.open(path) as image:
        return from_pil(image)


def png_bytes(image: Tensor, *, compress_level: int = 6) -> bytes:
    """Encode uint8 [C, H, W] as PNG. The result is deterministic."""
    buffer = io.BytesIO()
    pil_image(image).save(buffer, format="png", compress_level=compress_level)
    return buffer.getvalue()


def write(image: Tensor, path: str | os.PathLike[str]) -> None:
    """Write uint8 [C, H, W] as a PNG file, atomically."""
    write_atomic(path, png_bytes(image))


def write_gif(frames: Sequence[Tensor], path: str | os.PathLike[str], *, fps: float = 25) -> None:
    """Write a GIF file as `save_gif`, atomically."""
    buffer = io.BytesIO()
    save_gif(frames, buffer, fps=fps)
    write_atomic(path, buffer.getvalue())


def save_gif(frames: Sequence[Tensor], file: IO[bytes], *, fps: float = 25) -> None:
    """Write uint8 [C, H, W] frames as an endless GIF into an open file.

    The format has durations in hundredths of a second. They are rounded so that the total duration
    is exact.
    """
    first, *rest = [pil_image(frame) for frame in frames]
    ends = [round(100 * index / fps) for index in range(len(frames) + 1)]
    first.save(
        file,
        format="gif",
        save_all=True,
        append_images=rest,
        duration=[10 * (end - start) for start, end in itertools.pairwise(ends)],
        loop=0,
    )
