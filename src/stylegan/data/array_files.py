"""Images in files of arrays, NPY and TIFF, and their conversion to the pixels of a set."""

import io
import logging
import math
from typing import Any

import numpy as np
import tifffile
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from stylegan.pixel_format import Depth, PixelFormat

NPY_START = b"\x93NUMPY"
TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # TIFF 6.0 and BigTIFF
_EXTRA_ALPHA = (1, 2)  # TIFF 6.0, tag ExtraSamples: premultiplied and straight
_PREMULTIPLIED = 1
_MAX_CHANNELS = 4096

# Damage is reported by the errors of those who call the functions here.
for _name in ("tifffile", "PIL.TiffImagePlugin"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)


def read_npy(data: bytes) -> NDArray[Any]:
    """Return the array of a `.npy` file.

    Raises:
        ValueError: or other exceptions of NumPy, if the file is damaged or holds objects.
    """
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    read_header = (
        np.lib.format.read_array_header_1_0
        if version == (1, 0)
        else np.lib.format.read_array_header_2_0
    )
    shape, _, dtype = read_header(file)
    # before memory for an array is allocated that the file does not have
    if math.prod(shape) * dtype.itemsize != len(data) - file.tell():
        raise ValueError(f"{len(data) - file.tell()} bytes of pixels for {dtype} {list(shape)}")
    array: NDArray[Any] = np.load(io.BytesIO(data), allow_pickle=False)
    return array


def read_tiff(data: bytes, page: int = 0) -> tuple[NDArray[Any], bool]:
    """Return a page of a TIFF file as [H, W, C], and whether the last channel is alpha.

    Raises:
        Exception: of any kind, if the file is damaged, or has a compression that tifffile does not
            decode by itself.
    """
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        return tiff_page(file, page)


def tiff_page(file: tifffile.TiffFile, number: int) -> tuple[NDArray[Any], bool]:
    """Return a page of an open TIFF file; see `read_tiff`. Colors become straight."""
    page = file.pages[number]
    assert isinstance(page, tifffile.TiffPage)
    limit = Image.MAX_IMAGE_PIXELS or math.inf
    if page.imagelength * page.imagewidth > limit or page.samplesperpixel > _MAX_CHANNELS:
        raise ValueError(f"{page.imagelength}x{page.imagewidth}x{page.samplesperpixel} values")
    array: NDArray[Any] = page.asarray()
    axes = page.axes
    if "S" in axes:
        array = np.moveaxis(array, axes.index("S"), -1)
    array = array.reshape(page.imagelength, page.imagewidth, -1)
    extra = tuple(int(each) for each in page.extrasamples)
    has_alpha = array.shape[2] == 4 and len(extra) == 1 and extra[0] in _EXTRA_ALPHA
    if has_alpha and extra[0] == _PREMULTIPLIED and array.dtype.kind in "uf":
        top = 1.0 if array.dtype.kind == "f" else float(np.iinfo(array.dtype).max)
        alpha = array[:, :, 3:].astype(np.float64) / top
        color = np.divide(
            array[:, :, :3], alpha, where=alpha > 0, out=np.zeros(array[:, :, :3].shape)
        )
        color = np.clip(color, 0, top)
        color = color if array.dtype.kind == "f" else np.rint(color)
        array = np.concatenate([color.astype(array.dtype), array[:, :, 3:]], axis=2)
    return array, has_alpha


def is_part(page: tifffile.TiffPage | tifffile.TiffFrame) -> bool:
    """Return whether a page of a TIFF is a smaller copy or a mask of another one."""
    return bool(isinstance(page, tifffile.TiffPage) and int(page.subfiletype) & 0b101)


def with_channels(array: NDArray[Any]) -> NDArray[Any]:
    """Return the array of one image as [H, W, C], from that or [H, W] or [C, H, W].

    The channels are the last axis, or the first if that is smaller. A first axis of length 1 before
    three others is left out.

    Raises:
        ValueError: if it has another number of axes, or no pixel.
    """
    if array.ndim == 4 and len(array) == 1:
        array = array[0]
    if array.ndim not in (2, 3) or 0 in array.shape:
        raise ValueError(f"an array {list(array.shape)} is not one image")
    if array.ndim == 2:
        return array[:, :, None]
    return np.moveaxis(array, 0, 2) if array.shape[0] < array.shape[2] else array


def depth_of(dtype: np.dtype[Any]) -> Depth | None:
    """Return the depth of arrays of a type; None if pixels are not stored so."""
    if dtype.kind == "f":
        return "float32"
    depths: dict[tuple[str, int], Depth] = {("u", 1): "uint8", ("u", 2): "uint16"}
    return depths.get((dtype.kind, dtype.itemsize))


def convert(pixels: Tensor, source: PixelFormat, target: PixelFormat) -> Tensor:
    """Convert stored pixels [C, H, W] to the format of a set.

    Grey becomes RGB, and RGB gets an opaque alpha channel. Alpha is composed on white. 8 bits are
    widened to 16 without loss, and more are rounded to 8.

    Raises:
        ValueError: if there is no such conversion.
    """
    if source == target:
        return pixels
    if not can_convert(source, target):
        raise ValueError(f"{source} cannot become {target}")
    if source.has_alpha and not target.has_alpha:
        plain = PixelFormat(num_channels=3, depth=source.depth, range=source.range)
        pixels, source = plain.to_stored(source.as_rgb(source.to_float(pixels))), plain
    if source.num_channels == 1 and target.num_channels > 1:
        pixels = pixels.expand(3, *pixels.shape[1:])
    if target.has_alpha and not source.has_alpha:
        opaque = {"uint8": 255.0, "uint16": 65535.0, "float32": source.range[1]}[source.depth]
        pixels = torch.cat([pixels, torch.full_like(pixels[:1], opaque)])
    if source.depth != target.depth:
        pixels = change_depth(pixels, source, target.depth)
    return pixels


def can_convert(source: PixelFormat, target: PixelFormat) -> bool:
    """Return whether `convert` converts between two formats."""
    if source == target:
        return True
    has_names = all(each.num_channels in (1, 3) or each.has_alpha for each in (source, target))
    is_same_kind = (source.depth == "float32") == (target.depth == "float32")
    loses_color = source.num_channels > 1 and target.num_channels == 1
    return has_names and is_same_kind and source.range == target.range and not loses_color


def is_picture_format(pixels: PixelFormat) -> bool:
    """Return whether pixels are grey, RGB or RGBA of whole numbers, as of pictures in files."""
    return pixels.depth != "float32" and (pixels.num_channels in (1, 3) or pixels.has_alpha)


def change_depth(pixels: Tensor, source: PixelFormat, depth: Depth) -> Tensor:
    """Return pixels of another depth, rounded, without a change of channels."""
    if source.depth == depth:
        return pixels
    if source.depth == "uint8" and depth == "uint16":
        return (pixels.to(torch.int32) * 257).to(torch.uint16)
    if source.depth == "uint16" and depth == "uint8":
        return ((pixels.to(torch.int64) * 255 + 32767) // 65535).to(torch.uint8)
    # without alpha: colors stay straight
    plain = PixelFormat(num_channels=source.num_channels, depth=source.depth, range=source.range)
    target = PixelFormat(num_channels=source.num_channels, depth=depth)
    return target.to_stored(plain.to_float(pixels))


def reduce(pixels: Tensor, factor: int, *, has_alpha: bool = False) -> Tensor:
    """Reduce stored pixels [..., C, H, W] by an integer factor with a box filter.

    Means of integers are rounded once, to nearest, halves upwards.

    Args:
        pixels: of any depth.
        factor: of both sides.
        has_alpha: whether they are RGBA: colors are then weighted by alpha.
    """
    if factor == 1:
        return pixels
    *rest, height, width = pixels.shape
    blocks = pixels.reshape(*rest, height // factor, factor, width // factor, factor)
    if pixels.is_floating_point() or has_alpha:
        values = blocks.to(torch.float64)
        if has_alpha:
            color, alpha = values[..., :3, :, :, :, :], values[..., 3:, :, :, :, :]
            weight = torch.where(alpha.sum(dim=(-3, -1), keepdim=True) > 0, alpha, 1.0)
            mean = (color * weight).sum(dim=(-3, -1)) / weight.sum(dim=(-3, -1))
            means = torch.cat([mean, alpha.mean(dim=(-3, -1))], dim=-3)
        else:
            means = values.mean(dim=(-3, -1))
        is_float = pixels.is_floating_point()
        return (means if is_float else (means + 0.5).floor()).to(pixels.dtype)
    sums = blocks.sum(dim=(-3, -1), dtype=torch.int64)
    return ((sums + factor**2 // 2) // factor**2).to(pixels.dtype)


def flipped(pixels: Tensor) -> Tensor:
    """Return stored pixels [..., H, W], flipped horizontally."""
    if pixels.dtype == torch.uint16:  # which torch cannot flip (2.13)
        return pixels.view(torch.int16).flip(-1).view(torch.uint16)
    return pixels.flip(-1)
