"""Decoding image files with Pillow, in threads."""

import collections
import contextlib
import functools
import importlib.util
import io
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
from PIL import Image, ImageColor, TiffImagePlugin, UnidentifiedImageError

from stylegan import images
from stylegan.data.damage import num_blank_bytes
from stylegan.errors import ConfigError, DataError

# A closed list, as other plugins of Pillow start programs (EPS) or accept any bytes (TGA).
FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000", "AVIF", "HEIF")
_HEIC_EXTENSIONS = frozenset({".heic", ".heif", ".hif"})

LOSSY_FORMATS = frozenset(
    {"JPEG", "AVIF", "HEIF", "WEBP (lossy)", "JPEG2000 (lossy)", "TIFF (lossy)"}
)
"""Formats of `stored_format` whose compression changes the pixels."""

_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # TIFF 6.0 and BigTIFF
# The first bytes of files in these formats.
_SIGNATURES = (
    *(b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF8", b"BM", *_TIFF),
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
_SUBFILE_TYPE_TAG, _BITS_TAG = 254, 258
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
        if data.startswith(_TIFF):
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


def final_mode(image: Image.Image, *, background: Color = WHITE) -> Mode:
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


def decode(data: bytes, *, background: Color = WHITE) -> Decoded:
    """Decode an image, rotate it by its EXIF tag, and convert it to mode L or RGB.

    Transparent pixels are composed on `background`. 16-bit grey is scaled to 8 bits and rounded;
    of 16-bit color, Pillow drops the low byte. Of an animation the first frame is decoded. Color
    profiles are not applied.

    Raises:
        DataError: if the data cannot be used. The message starts with one of: empty, not an image,
            a grid, too large, truncated or damaged, wrong mode.
    """
    image = open_image(data)
    if images.is_grid(image):
        raise unusable("a grid of images, written by stylegan")
    size, stored_mode, file_format = image.size, image.mode, stored_format(image, data)
    mode = final_mode(image, background=background)
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
    orientation = _orientation(image)
    image = _to_eight_bits(image, data, background=background, steps=steps)
    if image.mode != mode:
        image = image.getchannel(0) if mode == "L" else image.convert(mode)
    if orientation in _UPRIGHT:
        image = image.transpose(_UPRIGHT[orientation])
        steps.append(f"turned upright (EXIF orientation {orientation})")
    return Decoded(image=image, size=size, mode=stored_mode, format=file_format, steps=tuple(steps))


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
