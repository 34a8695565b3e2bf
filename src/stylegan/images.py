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
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from stylegan.alpha import straight
from stylegan.captions import (
    Captions,
    default_scale,
    draw_line,
    font_size,
    line_height,
    row_title_width,
)
from stylegan.files import write_atomic

_GRID_MARK = ("stylegan", "grid")
"""Keyword and text of the chunk tEXt in PNG files of grids."""


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


def enlarge(images: Tensor, scale: int) -> Tensor:
    """Enlarge [..., H, W] by a whole number, repeating pixels."""
    if scale == 1:
        return images
    return images.repeat_interleave(scale, -2).repeat_interleave(scale, -1)


def over_checkerboard(pictures: Tensor) -> Tensor:
    """Compose straight RGBA, uint8 [..., 4, H, W], on a checkerboard: uint8 [..., 3, H, W].

    It has squares of 8 pixels, white and light grey.
    """
    height, width = pictures.shape[-2:]
    rows, columns = (torch.arange(size, device=pictures.device) // 8 for size in (height, width))
    is_grey = (rows[:, None] + columns) % 2 == 1
    return over_color(pictures, torch.where(is_grey, 204, 255))


def over_color(pictures: Tensor, color: Tensor | int = 255) -> Tensor:
    """Compose straight RGBA, uint8 [..., 4, H, W], on a color: uint8 [..., 3, H, W].

    Args:
        pictures: the pixels.
        color: levels in 0..255 that broadcast with the result; white by default.
    """
    levels = pictures.to(torch.int32)
    rgb, alpha = levels[..., :3, :, :], levels[..., 3:, :, :]
    return ((rgb * alpha + color * (255 - alpha) + 127) // 255).to(torch.uint8)


def grid(
    images: Tensor,
    *,
    columns: int,
    padding: int = 0,
    fill: int = 255,
    captions: Captions | None = None,
    scale: int | None = None,
) -> Tensor:
    """Tile uint8 [N, C, H, W] row by row into one image, uint8 [C, H', W'].

    Args:
        images: uint8 [N, C, H, W]. RGBA (straight) is composed on a checkerboard, to RGB.
        columns: number of columns.
        padding: pixels between images.
        fill: value of the padding, of cells without an image, and behind captions.
        captions: texts around the images; None for none.
        scale: enlarge the images by this whole number, repeating pixels; None enlarges images with
            captions to `captions.MIN_SIDE` pixels or more, and no others.
    """
    if images.dtype != torch.uint8 or images.ndim != 4:
        raise ValueError(f"grid takes uint8 [N, C, H, W], got {images.dtype} {list(images.shape)}")
    texts = captions or Captions()
    if scale is None:
        scale = 1 if captions is None else default_scale(images.shape[-1])
    images = enlarge(images, scale)
    if images.shape[1] == 4:
        images = over_checkerboard(images)
    num, channels, height, width = images.shape
    size = font_size(width)
    line = line_height(size)
    rows = -(-num // columns)
    step_y, step_x = height + (line if texts.tiles else 0) + padding, width + padding
    top = line if texts.columns else 0
    left = row_title_width(texts.rows, size) if texts.rows else 0
    shape = (channels, top + rows * step_y - padding, left + columns * step_x - padding)
    tiled = images.new_full(shape, fill)

    def write_text(text: str, y: int, x: int, width: int) -> None:
        strip = draw_line(text, width=width, size=size).to(torch.int32)
        ink = 0 if fill >= 128 else 255
        tiled[:, y : y + line, x : x + width] = (fill * (255 - strip) + ink * strip) // 255

    for index, image in enumerate(images):
        y, x = top + (index // columns) * step_y, left + (index % columns) * step_x
        tiled[:, y : y + height, x : x + width] = image
        if texts.tiles:
            write_text(texts.tiles[index], y + height, x, width)
    for column, text in enumerate(texts.columns):
        write_text(text, 0, left + column * step_x, width)
    for row, text in enumerate(texts.rows):
        write_text(text, top + row * step_y + (height - line) // 2, size // 4, left - size // 2)
    return tiled


def pil_image(image: Tensor) -> Image.Image:
    """Return uint8 [C, H, W] with 1 (gray), 3 (RGB) or 4 (RGBA) channels as a PIL image."""
    array: NDArray[np.uint8] = image.cpu().permute(1, 2, 0).contiguous().numpy()
    return Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)


def to_pil(images: Tensor) -> Image.Image | list[Image.Image]:
    """Return images as PIL images.

    Args:
        images: float in [-1, 1], as networks give them, or uint8 in 0..255: [C, H, W] or
            [N, C, H, W] with 1 (gray), 3 (RGB) or 4 (RGBA) channels, on any device. Alpha is
            premultiplied in floats, and straight in uint8.

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
    if pixels.dtype != torch.uint8:
        pixels = to_uint8(straight(pixels.to(torch.float32)) if pixels.shape[-3] == 4 else pixels)
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


def png_bytes(image: Tensor, *, compress_level: int = 6, marks_grid: bool = False) -> bytes:
    """Encode uint8 [C, H, W] as PNG. The result is deterministic.

    Args:
        image: the pixels.
        compress_level: from 0 (large and fast) to 9 (small and slow).
        marks_grid: store that this is a grid of images, which `is_grid` finds.
    """
    buffer = io.BytesIO()
    info = PngInfo()
    if marks_grid:
        info.add_text(*_GRID_MARK)
    pil_image(image).save(buffer, format="png", compress_level=compress_level, pnginfo=info)
    return buffer.getvalue()


def is_grid(image: Image.Image) -> bool:
    """Return whether an opened file is a grid of `write_grid`, and not a single image."""
    key, value = _GRID_MARK
    return image.info.get(key) == value


def write(image: Tensor, path: str | os.PathLike[str]) -> None:
    """Write uint8 [C, H, W] as a PNG file, atomically."""
    write_atomic(path, png_bytes(image))


def write_grid(image: Tensor, path: str | os.PathLike[str]) -> None:
    """Write a grid of images as a PNG file, marked so that it is not taken for one of them."""
    write_atomic(path, png_bytes(image, marks_grid=True))


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
