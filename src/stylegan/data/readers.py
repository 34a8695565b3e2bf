"""Decoding image files, in threads: with Pillow, and arrays with NumPy and tifffile."""

import collections
import contextlib
import functools
import importlib.util
import io
import math
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageColor, TiffImagePlugin, UnidentifiedImageError
from torch import Tensor

from stylegan import images, png16
from stylegan.alpha import compose
from stylegan.data.array_files import (
    NPY_START,
    TIFF_STARTS,
    change_depth,
    convert,
    depth_of,
    read_npy,
    read_tiff,
    with_channels,
)
from stylegan.data.damage import num_blank_bytes
from stylegan.errors import ConfigError, DataError
from stylegan.pixel_format import UNIT, PixelFormat

# A closed list, as other plugins of Pillow start programs (EPS) or accept any bytes (TGA).
FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000", "AVIF", "HEIF")
_HEIC_EXTENSIONS = frozenset({".heic", ".heif", ".hif"})

LOSSY_FORMATS = frozenset(
    {"JPEG", "AVIF", "HEIF", "WEBP (lossy)", "JPEG2000 (lossy)", "TIFF (lossy)"}
)
"""Formats of `stored_format` whose compression changes the pixels."""

# The first bytes of files in these formats.
_SIGNATURES = (
    *(b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF8", b"BM", *TIFF_STARTS),
    *(b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51", b"P5\n", b"P6\n"),
)
# ISO/IEC 23008-12, annex B: images and sequences in HEVC, and any codec; AV1 Image File Format 1.1.
_ISO_BRANDS = (
    *(b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"),
    *(b"mif1", b"msf1", b"avif", b"avis"),
)

_MAX_TEXT = 200  # characters of another library's error

# EXIF 2.32, tag 0x0112: how to rotate and flip the stored picture.
_ORIENTATION_TAG = 0x0112
_SUBFILE_TYPE_TAG, _BITS_TAG, _SAMPLES_TAG = 254, 258, 277
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_GREY_MODES = frozenset({"1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "I;16N"})
_COLOR_MODES = frozenset({"RGB", "RGBA", "RGBa", "RGBX", "P", "PA", "CMYK", "YCbCr", "HSV"})

Color = tuple[int, int, int]
Mode = Literal["L", "RGB"]
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

WHITE: Color = (255, 255, 255)
Alpha = Literal["auto", "none"]
KeptDepth = Literal["keep", "uint8"]


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How files become pixels.

    Attributes:
        background: color on which transparent pixels are composed. None: alpha is kept.
        range: of floats, the values that become black and white; others are clipped. None: 0 and 1,
            and an image with others cannot be used.
        alpha: "auto" takes the last of four channels of an array for alpha, "none" does not. A TIFF
            file says it itself.
        depth: "uint8" rounds deeper pixels to 8 bits.
    """

    background: Color | None = None
    range: tuple[float, float] | None = None
    alpha: Alpha = "auto"
    depth: KeptDepth = "keep"


@dataclass(frozen=True, kw_only=True)
class Raster:
    """A decoded image, rotated by EXIF.

    Attributes:
        stored: the pixels, [C, H, W].
        pixels: their format.
        size: width and height as stored in the file, in pixels.
        mode: Pillow's mode as stored in the file; for arrays, type and channels.
        format: as of `stored_format`, or NPY.
        steps: descriptions of the conversions, in order.
        is_clipped: whether values outside the stated range were clipped.
    """

    stored: Tensor
    pixels: PixelFormat
    size: tuple[int, int]
    mode: str
    format: str
    steps: tuple[str, ...] = ()
    is_clipped: bool = False


def parse_range(text: str | None) -> tuple[float, float] | None:
    """Return the range of floats that an option states as "LOW,HIGH"; None for None.

    Raises:
        ConfigError: if it is none.
    """
    if text is None:
        return None
    with contextlib.suppress(ValueError):
        low, high = map(float, text.split(","))
        if -math.inf < low < high < math.inf:
            return low, high
    raise ConfigError(f"range must be two finite numbers, the lower first, such as 0,1, got {text}")


def reading_of(
    *,
    background: str | None = None,
    range: str | None = None,
    alpha: Alpha = "auto",
    depth: KeptDepth = "keep",
) -> Reading:
    """Return how files are read, from options as text.

    Raises:
        ConfigError: if a color or the range is none.
    """
    color = None if background is None else parse_color(background)
    return Reading(background=color, range=parse_range(range), alpha=alpha, depth=depth)


@functools.cache
def image_formats() -> tuple[str, ...]:
    """Return those of `FORMATS` that this build of Pillow and its plugins can open."""
    Image.init()
    if importlib.util.find_spec("pillow_heif") is not None:
        importlib.import_module("pillow_heif").register_heif_opener()
    return tuple(name for name in FORMATS if name in Image.OPEN)


@functools.cache
def image_extensions() -> frozenset[str]:
    """Return the file name extensions of images, in lower case, with their dot.

    They are those of `image_formats`, and those of HEIC files, which are images even where the
    package that reads them is missing.
    """
    formats = image_formats()  # registers the extensions of plugins
    known = Image.registered_extensions()
    return _HEIC_EXTENSIONS | {ending for ending, name in known.items() if name in formats}


def is_image_start(data: bytes) -> bool:
    """Return whether the first bytes of a file, 16 or more, are those of an image format."""
    is_webp = data[:4] == b"RIFF" and data[8:12] == b"WEBP"
    return data.startswith(_SIGNATURES) or is_webp or _is_iso_image(data)


def _is_iso_image(data: bytes) -> bool:
    return data[4:8] == b"ftyp" and data[8:12] in _ISO_BRANDS


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """A decoded image, rotated by EXIF and without alpha.

    Attributes:
        image: in mode L or RGB.
        size: width and height as stored in the file, in pixels.
        mode: Pillow's mode as stored in the file.
        format: as of `stored_format`.
        steps: descriptions of the conversions, in order.
    """

    image: Image.Image
    size: tuple[int, int]
    mode: str
    format: str
    steps: tuple[str, ...]


def reading_for(pixels: PixelFormat) -> Reading:
    """Return how files become images of the format of a network."""
    return Reading(
        background=None if pixels.has_alpha else WHITE,
        range=pixels.range if pixels.depth == "float32" else None,
        alpha="none" if pixels.num_channels == 4 and not pixels.has_alpha else "auto",
        depth="uint8" if pixels.depth == "uint8" else "keep",
    )


def parse_color(text: str) -> Color:
    """Return (red, green, blue) in 0..255 from a CSS name or `#rrggbb`.

    Raises:
        ConfigError: if the text is neither.
    """
    with contextlib.suppress(ValueError):
        match ImageColor.getrgb(text):
            case (red, green, blue):
                return red, green, blue
    raise ConfigError(f"the color {text!r} is neither a CSS name, such as white, nor #rrggbb")


def open_image(data: bytes) -> Image.Image:
    """Read the header of an encoded image, without decoding the pixels.

    Raises:
        DataError: if `data` is not an image, or it has too many pixels.
    """
    if not data:
        raise unusable("empty")
    try:
        image = Image.open(io.BytesIO(data), formats=image_formats())
    except UnidentifiedImageError:
        if data.startswith(TIFF_STARTS):
            raise unusable(
                "truncated or damaged, or a TIFF that Pillow cannot read (save it with 8 or "
                "16 bits)"
            ) from None
        if not _is_iso_image(data):
            raise unusable("not an image") from None
        is_avif = data[8:10] == b"av"
        if not is_avif and "HEIF" not in image_formats():
            raise unusable(
                "HEIC, which needs a package: pip install 'stylegan[heic]', or save it as JPEG"
            ) from None
        name = "AVIF" if is_avif else "HEIC"
        raise unusable(
            f"truncated or damaged, or a kind of {name} that cannot be read (save it as JPEG)"
        ) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_large() from None
    except Exception as error:  # a damaged header can raise nearly any exception
        raise unusable(f"truncated or damaged ({one_line(error)})") from error
    if Image.MAX_IMAGE_PIXELS is not None and image.width * image.height > Image.MAX_IMAGE_PIXELS:
        raise _too_large()
    return image


def page_numbers(image: Image.Image) -> list[int]:
    """Return the pages of a TIFF that are images of their own; [0] for all other formats.

    Smaller copies and masks of other pages are not counted. The image is left at its first page.

    Source: TIFF 6.0, section 8, tag NewSubfileType.
    """
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return [0]
    pages = [0]
    for number in range(1, image.n_frames):
        image.seek(number)
        if not int(image.tag_v2.get(_SUBFILE_TYPE_TAG, 0)) & 0b101:
            pages.append(number)
    image.seek(0)
    return pages


def _final_mode(image: Image.Image, *, background: Color = WHITE) -> Mode:
    """Return the mode of the image after `decode`: L for grey images, RGB for all others.

    Raises:
        DataError: if the mode cannot be converted to 8 bits per channel.
    """
    if image.mode in _GREY_MODES:
        has_alpha = image.mode in ("LA", "La") or image.has_transparency_data
        return "RGB" if has_alpha and len(set(background)) > 1 else "L"
    if image.mode in _COLOR_MODES:
        return "RGB"
    raise unusable(f"wrong mode {image.mode}")


def decode(data: bytes, *, background: Color = WHITE, reading: Reading | None = None) -> Decoded:
    """Decode an image, rotate it by its EXIF tag, and convert it to mode L or RGB.

    Transparent pixels are composed on `background`. 16-bit grey is scaled to 8 bits and rounded;
    of 16-bit color, Pillow drops the low byte. Of an animation the first frame is decoded. Color
    profiles are not applied. Images of other channels are seen as RGB, as of `PixelFormat.as_rgb`.

    Args:
        data: the file.
        background: color behind transparent pixels.
        reading: how arrays are read; `background` has precedence. None: the defaults.

    Raises:
        DataError: if the data cannot be used. The message starts with one of: empty, not an image,
            a grid, too large, truncated or damaged, wrong mode.
    """
    if is_array_file(data):
        flat = replace(reading or Reading(), background=background, depth="uint8")
        raster = _read_array(data, flat)
        picture = images.pil_image(raster.pixels.seen_stored(raster.stored))
        converted = () if raster.pixels.is_plain else (f"converted {raster.pixels} to RGB",)
        return Decoded(
            image=picture,
            size=raster.size,
            mode=raster.mode,
            format=raster.format,
            steps=(*raster.steps, *converted),
        )
    return _flat(_opened(data), data, background=background)


def read_raster(data: bytes, reading: Reading) -> Raster:
    """Decode an image with all of its channels and its depth, and rotate it by its EXIF tag.

    Alpha that is opaque everywhere is left out. Grey with alpha becomes RGBA.

    Raises:
        DataError: as `decode`.
    """
    if is_array_file(data):
        return _read_array(data, reading)
    opened = _opened(data)
    image = opened.image
    is_deep = reading.depth == "keep" and (
        image.mode.startswith("I") or png16.is_sixteen_bits(data)
    )
    has_alpha = image.has_transparency_data and (reading.background is None or is_deep)
    stored: Tensor | None = None
    if is_deep:
        try:
            levels = png16.decode(data) if png16.is_sixteen_bits(data) else np.asarray(image)
        except Exception as error:
            raise unusable(f"truncated or damaged ({one_line(error)})") from error
        if levels.min() < 0 or levels.max() > 65535:
            raise unusable(f"wrong mode {image.mode} (values outside 16 bits)")
        stored = _channels_first(levels.astype(np.uint16))
    elif has_alpha:
        rgba = np.asarray(image.convert("RGBA"))
        stored = _channels_first(rgba) if rgba[:, :, 3].min() < 255 else None
    if stored is None:
        flat = _flat(opened, data, background=reading.background or WHITE)
        return Raster(
            stored=images.from_pil(flat.image),
            pixels=PixelFormat(num_channels=1 if flat.image.mode == "L" else 3),
            size=flat.size,
            mode=flat.mode,
            format=flat.format,
            steps=flat.steps,
        )
    steps = [*opened.steps]
    if "icc_profile" in image.info:
        steps.append("dropped the color profile")
    stored = _upright(stored, opened.orientation, steps)
    return _finished(
        stored,
        has_alpha=stored.shape[0] == 4,
        reading=reading,
        raster=Raster(
            stored=stored,
            pixels=PixelFormat(),
            size=image.size,
            mode=opened.mode,
            format=opened.format,
            steps=tuple(steps),
        ),
    )


def read_pixels(data: bytes, pixels: PixelFormat, reading: Reading) -> Tensor:
    """Decode an image as the pixels of a set, [C, H, W].

    Raises:
        DataError: as `decode`, or if the image has other pixels, which cannot be converted.
    """
    if pixels.is_plain and not is_array_file(data):
        image = decode(data, background=reading.background or WHITE, reading=reading).image
        mode = "L" if pixels.num_channels == 1 else "RGB"
        return images.from_pil(image if image.mode == mode else image.convert(mode))
    raster = read_raster(data, reading)
    try:
        return convert(raster.stored, raster.pixels, pixels)
    except ValueError as error:
        raise unusable(f"wrong mode {raster.mode} ({error})") from error


@dataclass(frozen=True, kw_only=True)
class _Opened:
    """An image that Pillow has loaded, before any conversion."""

    image: Image.Image
    mode: str
    format: str
    orientation: int
    steps: tuple[str, ...]


def _opened(data: bytes) -> _Opened:
    image = open_image(data)
    if images.is_grid(image):
        raise unusable("a grid of images, written by stylegan")
    stored_mode, file_format = image.mode, stored_format(image, data)
    _final_mode(image)
    steps = []
    try:
        num_pages = len(page_numbers(image))
        num_frames = int(getattr(image, "n_frames", 1))
        image.load()
    except MemoryError:
        raise
    except Exception as error:  # plugins raise OSError, SyntaxError, struct.error, ...
        raise unusable(f"truncated or damaged ({one_line(error)})") from error
    if num_blank := num_blank_bytes(data, image.format):
        raise unusable(f"truncated or damaged (the last {num_blank} bytes are blank)")
    if num_pages > 1:
        raise unusable("several pages (put the file into a folder, where each page is an image)")
    if num_frames > 1:
        steps.append(f"took the first of {num_frames} frames")
    return _Opened(
        image=image,
        mode=stored_mode,
        format=file_format,
        orientation=_orientation(image),
        steps=tuple(steps),
    )


def _flat(opened: _Opened, data: bytes, *, background: Color) -> Decoded:
    """Return an image of Pillow in mode L or RGB."""
    steps = [*opened.steps]
    mode = _final_mode(opened.image, background=background)
    image = _to_eight_bits(opened.image, data, background=background, steps=steps)
    if image.mode != mode:
        image = image.getchannel(0) if mode == "L" else image.convert(mode)
    if opened.orientation in _UPRIGHT:
        image = image.transpose(_UPRIGHT[opened.orientation])
        steps.append(f"turned upright (EXIF orientation {opened.orientation})")
    return Decoded(
        image=image,
        size=opened.image.size,
        mode=opened.mode,
        format=opened.format,
        steps=tuple(steps),
    )


def is_array_file(data: bytes) -> bool:
    """Return whether a file is an NPY file, or a TIFF file whose pixels Pillow would change."""
    if data.startswith(NPY_START):
        return True
    if not data.startswith(TIFF_STARTS):
        return False
    try:
        with Image.open(io.BytesIO(data), formats=("TIFF",)) as image:
            assert isinstance(image, TiffImagePlugin.TiffImageFile)
            samples = int(image.tag_v2.get(_SAMPLES_TAG, 1))
            is_partial = samples != len(image.getbands()) or image.mode == "RGBX"
            return has_deep_color(image) or image.mode == "F" or is_partial
    except UnidentifiedImageError:
        return data[4:8] != b""
    except Exception:  # reported by `open_image`
        return False


def has_deep_color(image: Image.Image) -> bool:
    """Return whether an opened TIFF has several channels of 16 bits, which Pillow reduces to 8."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return False
    bits = image.tag_v2.get(_BITS_TAG, (1,))
    return 16 in bits and len(bits) > 1


def _read_array(data: bytes, reading: Reading) -> Raster:
    """Read an NPY file, or a TIFF file of channels that Pillow does not have."""
    is_npy = data.startswith(NPY_START)
    try:
        if is_npy:
            array = with_channels(read_npy(data))
            has_alpha = array.shape[2] == 4 and reading.alpha == "auto"
        else:
            array, has_alpha = read_tiff(data)
    except MemoryError:
        raise
    except Exception as error:
        if is_npy and "is not one image" in str(error):
            raise unusable(f"not an image ({one_line(error)})") from error
        if is_npy or not _is_whole_tiff(data):
            raise unusable(f"truncated or damaged ({one_line(error)})") from error
        raise unusable(
            "truncated or damaged, or a TIFF that cannot be read (save it without compression)"
        ) from error
    height, width, channels = array.shape
    if not array.size:
        raise unusable("truncated or damaged (no pixels)")
    if Image.MAX_IMAGE_PIXELS is not None and width * height > Image.MAX_IMAGE_PIXELS:
        raise _too_large()
    depth = depth_of(array.dtype)
    mode = array.dtype.name + (f" of {channels} channels" if channels > 1 else "")
    if depth is None:
        raise unusable(f"wrong mode {array.dtype.name} (save uint8, uint16 or float32)")
    range_, is_clipped = UNIT, False
    if depth == "float32":
        range_ = reading.range or UNIT
        array, is_clipped = _within(array.astype(np.float32), range_, is_stated=bool(reading.range))
    stored = _channels_first(array.astype(depth))
    return _finished(
        stored,
        has_alpha=has_alpha,
        reading=reading,
        raster=Raster(
            stored=stored,
            pixels=PixelFormat(num_channels=channels, depth=depth, range=range_),
            size=(width, height),
            mode=mode,
            format="NPY" if is_npy else "TIFF",
            is_clipped=is_clipped,
        ),
    )


def _is_whole_tiff(data: bytes) -> bool:
    """Return whether the header of a TIFF can be read, so that only its compression is unknown."""
    try:
        read_tiff(data)
    except ValueError as error:
        return "requires the 'imagecodecs' package" in str(error)
    except Exception:
        return False
    return True


def _within(
    array: NDArray[np.float32], range_: tuple[float, float], *, is_stated: bool
) -> tuple[NDArray[np.float32], bool]:
    """Clip floats to a stated range; return whether any was outside."""
    low, high = float(array.min()), float(array.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise unusable("wrong mode float32 (values that are not finite)")
    is_outside = low < range_[0] or high > range_[1]
    if is_outside and not is_stated:
        raise unusable(
            f"wrong mode float32 (floats from {low:g} to {high:g}; state their range by --range)"
        )
    return (array.clip(*range_) if is_outside else array), is_outside


def _finished(stored: Tensor, *, has_alpha: bool, reading: Reading, raster: Raster) -> Raster:
    """Return a raster with its alpha channel and depth as they are to be read."""
    channels, steps = stored.shape[0], [*raster.steps]
    pixels = raster.pixels
    depth = depth_of(np.dtype(str(stored.dtype).removeprefix("torch.")))
    assert depth is not None
    pixels = PixelFormat(
        num_channels=channels, depth=depth, range=pixels.range, has_alpha=has_alpha
    )
    if has_alpha:
        top = {"uint8": 255.0, "uint16": 65535.0, "float32": pixels.range[1]}[depth]
        plain = PixelFormat(num_channels=3, depth=depth, range=pixels.range)
        if bool((stored[3].to(torch.float64) >= top).all()):
            stored, pixels = stored[:3], plain
        elif reading.background is not None:
            color = torch.tensor(reading.background, dtype=torch.float32)[:, None, None]
            composed = compose(pixels.to_float(stored), color / 127.5 - 1)
            stored, pixels = plain.to_stored(composed), plain
            steps.append("composed on #{:02x}{:02x}{:02x}".format(*reading.background))
    if reading.depth == "uint8" and pixels.depth != "uint8":
        bits = "16 bits" if pixels.depth == "uint16" else "float32"
        steps.append(f"scaled {bits} to 8")
        stored = change_depth(stored, pixels, "uint8")
        pixels = PixelFormat(num_channels=pixels.num_channels, has_alpha=pixels.has_alpha)
    return replace(raster, stored=stored, pixels=pixels, steps=tuple(steps))


def _channels_first(array: NDArray[Any]) -> Tensor:
    """Return an array [H, W] or [H, W, C] as a tensor [C, H, W]."""
    array = array[:, :, None] if array.ndim == 2 else array
    return torch.from_numpy(np.ascontiguousarray(array.transpose(2, 0, 1)))


def _upright(stored: Tensor, orientation: int, steps: list[str]) -> Tensor:
    """Turn pixels [C, H, W] by their EXIF orientation, and append a description to `steps`."""
    if orientation not in _UPRIGHT:
        return stored
    steps.append(f"turned upright (EXIF orientation {orientation})")
    array = stored.numpy()
    transposed = array.transpose(0, 2, 1)
    turned = {
        2: array[:, :, ::-1],
        3: array[:, ::-1, ::-1],
        4: array[:, ::-1],
        5: transposed,
        6: transposed[:, :, ::-1],
        7: transposed[:, ::-1, ::-1],
        8: transposed[:, ::-1],
    }[orientation]
    return torch.from_numpy(np.ascontiguousarray(turned))


def stored_format(image: Image.Image, data: bytes) -> str:
    """Return Pillow's name of a file's format, with " (lossy)" where a format can be both.

    Source: RFC 9649 for WebP, where lossless pixels are in a chunk VP8L; ISO/IEC 15444-1 for
    JPEG 2000, where the last byte of the marker COD is 0 for the irreversible transform.

    Args:
        image: the opened file.
        data: its bytes.
    """
    name = image.format or ""
    start = data.find(b"\xff\x52")  # the marker COD, in which the transform has the offset 13
    is_lossy = {
        "WEBP": b"VP8L" not in data,
        "JPEG2000": start >= 0 and data[start + 13 : start + 14] == b"\0",
        "TIFF": "jpeg" in str(image.info.get("compression")),
    }
    return "JPEG" if name == "MPO" else name + " (lossy)" * is_lossy.get(name, False)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # the pixels are usable without the EXIF block
        return 1


def _to_eight_bits(
    image: Image.Image, data: bytes, *, background: Color, steps: list[str]
) -> Image.Image:
    """Return the image in mode L or RGB; append descriptions of the conversions to `steps`."""
    stored_mode = image.mode
    if "icc_profile" in image.info:
        steps.append("dropped the color profile")
    if stored_mode.startswith("I"):
        levels = np.asarray(image)
        if levels.min() < 0 or levels.max() > 65535:
            raise unusable(f"wrong mode {stored_mode} (values outside 16 bits)")
        steps.append("scaled 16 bits to 8")
        table = (np.arange(65536) * 255 + 32767) // 65535
        return Image.fromarray(table.astype(np.uint8)[levels])
    if _has_sixteen_bits(image, data):
        steps.append("scaled 16 bits to 8")
    if image.has_transparency_data:
        backdrop = Image.new("RGBA", image.size, background)
        image = Image.alpha_composite(backdrop, image.convert("RGBA")).convert("RGB")
        steps.append("composed {} on #{:02x}{:02x}{:02x}".format(stored_mode, *background))
    elif stored_mode not in ("L", "RGB"):
        image = image.convert("L" if stored_mode == "1" else "RGB")
        steps.append(f"converted {stored_mode} to {image.mode}")
    return image


def _has_sixteen_bits(image: Image.Image, data: bytes) -> bool:
    """Return whether Pillow has dropped the low byte of the channels of a PNG or TIFF."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return 16 in image.tag_v2.get(_BITS_TAG, ())
    return data[:4] == b"\x89PNG" and data[24] == 16


def unusable(reason: str) -> DataError:
    """Return the error for an image that cannot be used.

    Args:
        reason: starts with one of those in docs/data.md.
    """
    return DataError(reason)


def _too_large() -> DataError:
    return unusable(f"too large (more than {Image.MAX_IMAGE_PIXELS} pixels)")


def one_line(error: Exception) -> str:
    """Return the text of an error in one line, not too long; its type if it has no text."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}..."


def map_in_order(
    function: Callable[[_Item], _Result], items: Iterable[_Item], *, workers: int
) -> Iterator[_Result]:
    """Apply `function` in threads and yield the results in the order of `items`.

    At most four results per thread are pending, so memory stays bounded. Pillow decodes, resizes
    and encodes without holding the GIL, so threads are enough.
    """
    with ThreadPoolExecutor(workers) as pool:
        pending: collections.deque[Future[_Result]] = collections.deque()
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) >= 4 * workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def num_threads(workers: int | None) -> int:
    """Return the number of threads for the option `workers`: one per core for None and 0.

    Raises:
        ConfigError: if `workers` is negative.
    """
    if workers is not None and workers < 0:
        raise ConfigError(f"workers must be 0 or more, got {workers}")
    if workers:
        return workers
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
