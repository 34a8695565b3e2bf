"""Make a training set: a zip of equally sized images from images of any size and mode."""

import contextlib
import itertools
import json
import logging
import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import PIL
import torch
from PIL import Image
from torch import Tensor

from stylegan import __version__, images
from stylegan.data.array_files import convert
from stylegan.data.check import (
    OnBad,
    check_left_out,
    format_of_most,
    group_by_reason,
    listing_digest,
)
from stylegan.data.label_files import labels_by_folder, read_csv_labels, read_labels
from stylegan.data.labels import Label, Labels
from stylegan.data.readers import (
    WHITE,
    Alpha,
    Decoded,
    KeptDepth,
    Raster,
    Reading,
    decode,
    is_array_file,
    map_in_order,
    num_threads,
    parse_color,
    read_raster,
    reading_of,
)
from stylegan.data.resumable_zip import ResumableZip, resumable_zip
from stylegan.data.sources.base import AbstractSource
from stylegan.data.sources.files import LABELS_NAME, RECORD_NAME
from stylegan.data.sources.open import open_source
from stylegan.errors import ConfigError, DataError
from stylegan.image_size import ImageSize, Resolution, require_usable
from stylegan.notebook import TextResult
from stylegan.pixel_format import PixelFormat
from stylegan.progress import Counter

logger = logging.getLogger(__name__)

Crop = Literal["center", "pad", "wide", "none"]
Filter = Literal["lanczos", "box"]

NUM_SAMPLED = 1000
"""Images that decide on alpha and depth of a prepared set."""
_FILTERS = {"lanczos": Image.Resampling.LANCZOS, "box": Image.Resampling.BOX}


@dataclass(frozen=True, kw_only=True)
class PrepareOptions:
    """How images are cropped, resized and stored; see `stylegan.prepare` for each option.

    Raises:
        ConfigError: if a value is not allowed.
    """

    resolution: Resolution
    crop: Crop = "center"
    wide_height: int | None = None
    pad_color: str = "black"
    filter: Filter = "lanczos"
    background: str | None = None
    range: str | None = None
    alpha: Alpha = "auto"
    depth: KeptDepth = "keep"
    compress_level: int = 6
    labels_from: str | None = None
    every: int = 1
    on_bad: OnBad = "skip"

    def __post_init__(self) -> None:
        """Check the values."""
        object.__setattr__(self, "resolution", require_usable(self.resolution).stored)
        self.reading  # noqa: B018  (checks its options)
        parse_color(self.pad_color)
        if not 0 <= self.compress_level <= 9:
            raise ConfigError(f"compress_level must be from 0 to 9, got {self.compress_level}")
        if self.wide_height is not None and not 1 <= self.wide_height <= self.size.height:
            raise ConfigError(
                f"wide_height must be from 1 to the resolution {self.size.height}, "
                f"got {self.wide_height}"
            )

    @property
    def size(self) -> ImageSize:
        """Height and width of the images."""
        return ImageSize.of(self.resolution)

    @property
    def reading(self) -> Reading:
        """How files become pixels."""
        return reading_of(
            background=self.background, range=self.range, alpha=self.alpha, depth=self.depth
        )


@dataclass(frozen=True, kw_only=True)
class Prepared(TextResult):
    """What `prepare` wrote.

    Attributes:
        path: the zip.
        num_images: images in the zip.
        num_enlarged: how many of them were smaller than the resolution before.
        resolution: side of the images in pixels, or "HEIGHTxWIDTH".
        mode: L if all images are grey, RGB or RGBA, or the number of channels; with the depth if
            it is not 8 bits.
        skipped: name and reason of each file that was left out.
        num_bytes: size of the zip.
        classes: number, name and number of images of each class, one in a line.
    """

    path: Path
    num_images: int
    num_enlarged: int
    resolution: Resolution
    mode: str
    skipped: tuple[tuple[str, str], ...]
    num_bytes: int
    classes: str = ""

    def __str__(self) -> str:
        """Return the classes, and one line with size and counts."""
        classes = f"{self.classes}\n" if self.classes else ""
        enlarged = f"{self.num_enlarged} images enlarged, " if self.num_enlarged else ""
        return classes + (
            f"{self.path}: {self.num_images} images, {ImageSize.of(self.resolution)} "
            f"{self.mode}, {self.num_bytes / 1e6:.1f} MB; {enlarged}"
            f"{len(self.skipped)} files skipped"
        )


@dataclass(frozen=True, kw_only=True)
class _PreparedImage:
    content: bytes
    size: tuple[int, int]
    mode: str
    steps: tuple[str, ...]
    is_enlarged: bool


def prepare(
    source: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    *,
    options: PrepareOptions,
    overwrite: bool = False,
    workers: int | None = None,
    progress: Counter | None = None,
) -> Prepared:
    """Pack the images of a source into a zip in the official layout.

    Besides the images and `dataset.json`, the zip holds `prepare.json`, a record of how each image
    was made. The same images and options give the same bytes for any number of workers. The zip is
    written under a temporary name and renamed when it is complete. If the process is stopped before
    that, the same call continues it. Skipped files are named in a warning for each reason.

    Source: the layout is the data set format of the official StyleGAN2-ADA implementation.

    Args:
        source: see `stylegan.data.sources.open.open_source`.
        destination: the zip to write.
        options: how images are cropped, resized and stored.
        overwrite: replace `destination` if it exists.
        workers: number of threads; None uses one per processor core.
        progress: called with the number of files done and their total.

    Raises:
        ConfigError: if `destination` exists and `overwrite` is not set, or does not end in `.zip`.
        DataError: if there is no usable image, the zip cannot be written, or a file cannot be used
            and `options.on_bad` is "fail".
    """
    destination = Path(destination)
    if destination.suffix.lower() != ".zip":
        raise ConfigError(f"the destination must end in .zip, got {destination}")
    if destination.exists() and not overwrite:
        raise ConfigError(f"{destination} exists; choose another name, or pass --overwrite")
    opened = open_source(source, every=options.every)
    labels = _labels(opened, options.labels_from)
    pixels = _format_of_set(opened, options, workers=workers)
    if options.crop == "pad" and options.pad_color != "black" and not pixels.is_plain:
        raise ConfigError(
            f"--pad-color is for grey and RGB images of 8 bits, not for {pixels}, which are padded "
            "with the lowest value (black, or transparent)"
        )
    skipped = list(opened.left_out)
    if skipped and options.on_bad == "fail":
        raise _unusable_file(*skipped[0])

    def convert(name: str) -> _PreparedImage | str:
        if labels is not None and options.labels_from is not None and name not in labels.by_name:
            return "no label"
        try:
            return _convert(opened.read(name), options=options, pixels=pixels)
        except DataError as error:
            return error.message

    records: list[dict[str, Any]] = []
    new_labels: list[tuple[str, Label]] = []
    enlarged: list[str] = []
    key = f"{__version__} {PIL.__version__} {options} {pixels} {labels} {listing_digest(opened)}"
    with resumable_zip(destination, key=key) as archive:
        if archive.journal:
            logger.info("continuing %s after %d files", destination, len(archive.journal))
        rest = opened.images[len(archive.journal) :]
        converted = map_in_order(convert, rest, workers=num_threads(workers))
        written = (
            _write(archive, name, result, num_before=len(records), suffix=pixels.suffix)
            for name, result in zip(rest, converted, strict=True)
        )
        for num_done, facts in enumerate(itertools.chain(archive.journal, written), 1):
            name = facts["source"]
            if "reason" in facts:
                if options.on_bad == "fail":
                    raise _unusable_file(name, facts["reason"])
                skipped.append((name, facts["reason"]))
            else:
                if facts.pop("is_enlarged"):
                    enlarged.append(name)
                records.append(facts)
                if labels is not None and name in labels.by_name:
                    new_labels.append((facts["name"], labels.by_name[name]))
            if progress is not None:
                progress(num_done, len(opened.images))
        skipped.sort()
        for line in group_by_reason(skipped):
            logger.warning("%s", line)
        if not records:
            raise DataError(
                f"{opened.path} has no usable image among {len(skipped)} files",
                fix="check the path",
            )
        check_left_out(opened, skipped, num_usable=len(records), on_bad=options.on_bad)
        smaller = [(name, "smaller than the resolution") for name in enlarged]
        for line in group_by_reason(smaller, verb="enlarged"):
            logger.warning("%s", line)
        labels = None if labels is None else _labels_in_use(labels, records, opened)
        content: dict[str, object] = {"labels": new_labels if labels is not None else None}
        if labels is not None and labels.attributes:
            content["attributes"] = list(labels.attributes)
        archive.write(LABELS_NAME, _json(content))
        record: dict[str, object] = {
            "made_by": f"stylegan {__version__}",
            "pillow": PIL.__version__,
            "source": opened.path.resolve().name,
            "options": asdict(options),
            "mode": pixels.mode,
            "pixels": pixels.to_json(),
            "classes": [] if labels is None else list(labels.classes),
            "images": records,
            "skipped": [{"source": name, "reason": reason} for name, reason in skipped],
        }
        archive.write(RECORD_NAME, _json(record))
    return Prepared(
        path=destination,
        num_images=len(records),
        num_enlarged=len(enlarged),
        resolution=options.resolution,
        mode=str(pixels),
        skipped=tuple(skipped),
        num_bytes=destination.stat().st_size,
        classes="" if labels is None else labels.class_table(),
    )


def fit(image: Image.Image, *, options: PrepareOptions) -> tuple[Image.Image, tuple[str, ...]]:
    """Crop and resize an L, RGB or F image to `options.resolution`.

    Images of mode F, which are single channels, are padded with 0.

    Returns:
        The image, and descriptions of the steps.

    Raises:
        DataError: if the image is too small for crop "wide".
    """
    final, steps = options.size, []
    box = _crop_box(image.size, options=options)
    left, top, right, bottom = box
    if box != (0, 0, *image.size):
        image = image.crop(box)
        steps.append(f"cropped to {right - left}x{bottom - top} at ({left}, {top})")
    size = width, height = _picture_size(image.size, options)
    if image.size != size:
        steps.append(f"resized {image.width}x{image.height} to {width}x{height} ({options.filter})")
        image = image.resize(size, _FILTERS[options.filter])
    if size != (final.width, final.height):
        color = options.pad_color if options.crop == "pad" else "black"
        if image.mode == "L" and len(set(parse_color(color))) > 1:
            image = image.convert("RGB")
        fill = 0 if image.mode == "F" else color
        canvas = Image.new(image.mode, (final.width, final.height), fill)
        canvas.paste(image, ((final.width - width) // 2, (final.height - height) // 2))
        image = canvas
        kind = "square" if final.is_square else "rectangle"
        steps.append(f"centered on a {color} {final.width}x{final.height} {kind}")
    return image, tuple(steps)


def _convert(data: bytes, *, options: PrepareOptions, pixels: PixelFormat) -> _PreparedImage:
    decoded: Decoded | Raster
    if pixels.is_plain and not is_array_file(data):
        content, plain, steps = _convert_plain(data, options=options, pixels=pixels)
        upright, decoded = plain.image.size, plain
    else:
        stored, raster, steps = _convert_raster(data, options=options, pixels=pixels)
        content = pixels.file_bytes(stored, compress_level=options.compress_level)
        upright = (raster.stored.shape[2], raster.stored.shape[1])
        decoded = raster
    left, top, right, bottom = _crop_box(upright, options=options)
    crop = right - left, bottom - top
    is_enlarged = any(
        before < after for before, after in zip(crop, _picture_size(crop, options), strict=True)
    )
    return _PreparedImage(
        content=content,
        size=decoded.size,
        mode=decoded.mode,
        steps=(*decoded.steps, *steps),
        is_enlarged=is_enlarged,
    )


def _convert_plain(
    data: bytes, *, options: PrepareOptions, pixels: PixelFormat
) -> tuple[bytes, Decoded, tuple[str, ...]]:
    """Convert an image to grey or RGB of 8 bits, with Pillow's filters for bytes."""
    reading = options.reading
    decoded = decode(data, background=reading.background or WHITE, reading=reading)
    image, steps = fit(decoded.image, options=options)
    mode = "L" if pixels.num_channels == 1 else "RGB"
    if image.mode != mode:
        image = image.convert(mode)
        steps = (*steps, "converted grey to RGB")
    png = images.png_bytes(images.from_pil(image), compress_level=options.compress_level)
    return png, decoded, steps


def _convert_raster(
    data: bytes, *, options: PrepareOptions, pixels: PixelFormat
) -> tuple[Tensor, Raster, tuple[str, ...]]:
    """Convert an image to other pixels: each channel is cropped and resized in float32.

    Colors are premultiplied by alpha where the image is resized, and exact where it is not.
    """
    raster = read_raster(data, options.reading)
    try:
        stored = convert(raster.stored, raster.pixels, pixels)
    except ValueError as error:
        raise DataError(f"wrong mode {raster.mode} ({error})") from error
    steps = (*(() if raster.pixels == pixels else (f"converted {raster.pixels} to {pixels}",)),)
    fitted, more = fit_stored(stored, pixels, options=options)
    return fitted, raster, (*steps, *more)


def fit_stored(
    stored: Tensor, pixels: PixelFormat, *, options: PrepareOptions
) -> tuple[Tensor, tuple[str, ...]]:
    """Crop and resize stored pixels [C, H, W] as `fit` does, each channel in float32.

    Padding has the lowest value in all channels, which is black or transparent.

    Returns:
        The pixels, and descriptions of the steps.

    Raises:
        DataError: if the image is too small for crop "wide".
    """
    height, width = stored.shape[1:]
    left, top, right, bottom = _crop_box((width, height), options=options)
    crop = right - left, bottom - top
    is_resized = crop != _picture_size(crop, options)
    low = pixels.range[0] if pixels.depth == "float32" else 0.0
    values = pixels.to_float(stored) + 1 if is_resized else stored.to(torch.float32) - low
    steps: tuple[str, ...] = ()
    channels = []
    for channel in values.numpy():
        image, steps = fit(Image.fromarray(channel), options=options)
        channels.append(torch.from_numpy(np.array(image)))
    fitted = torch.stack(channels)
    if is_resized:
        return pixels.to_stored(fitted - 1), steps
    return (fitted + low).to(pixels.dtype), steps


def _picture_size(crop: tuple[int, int], options: PrepareOptions) -> tuple[int, int]:
    """Return width and height of the picture within the image, from those of the crop."""
    height, width = options.size.height, options.size.width
    if options.crop == "wide":
        return width, _wide_height(options)
    if options.crop == "pad":
        # the side that limits the size is filled
        if width * crop[1] <= height * crop[0]:
            return width, max(1, round(width * crop[1] / crop[0]))
        return max(1, round(height * crop[0] / crop[1])), height
    return width, height


def _wide_height(options: PrepareOptions) -> int:
    size = options.size
    return options.wide_height or (size.height * 3 // 4 if size.is_square else size.height)


def _crop_box(size: tuple[int, int], *, options: PrepareOptions) -> tuple[int, int, int, int]:
    """Return left, top, right and bottom of the crop, in pixels."""
    width, height = size
    if options.crop in ("none", "pad"):
        return 0, 0, width, height
    if options.crop == "center":
        final = options.size
        crop_width = max(1, min(width, round(height * final.width / final.height)))
        crop_height = max(1, min(height, round(width * final.height / final.width)))
        left, top = (width - crop_width) // 2, (height - crop_height) // 2
        return left, top, left + crop_width, top + crop_height
    # The official rule: the number of rows that the image would have at the target width, but
    # cropped from the image at full width. The aspect ratio changes, unless width and height
    # already are the target's.
    num_rows = round(options.size.width * height / width)
    if width < options.size.width or num_rows < _wide_height(options):
        raise DataError(f"wrong size {width}x{height} (too small for --crop wide)")
    top = (height - num_rows) // 2
    return 0, top, width, top + num_rows


def _format_of_set(
    source: AbstractSource, options: PrepareOptions, *, workers: int | None
) -> PixelFormat:
    """Return the pixels of the set that is made; see `check.format_of_most`.

    Alpha and depth follow from up to `NUM_SAMPLED` evenly spaced images. The set has color if any
    image has; after the samples, headers are read up to the first color image.
    """
    reading = options.reading

    def format_of(name: str) -> PixelFormat | None:
        with contextlib.suppress(DataError):  # reported when the image is converted
            return read_raster(source.read(name), reading).pixels
        return None

    num = min(len(source.images), NUM_SAMPLED)
    sampled = [source.images[index * len(source.images) // num] for index in range(num)]
    formats = map_in_order(format_of, sampled, workers=num_threads(workers))
    known = [pixels for pixels in formats if pixels is not None]
    pixels = format_of_most(known, any_color=True)
    is_colored = options.crop == "pad" and len(set(parse_color(options.pad_color))) > 1
    if pixels.num_channels > 1 or pixels.depth == "float32":
        return pixels
    others = set(source.images) - set(sampled)
    if is_colored or any(
        each is not None and each.num_channels > 1
        for each in (format_of(name) for name in source.images if name in others)
    ):
        return replace(pixels, num_channels=3)
    return pixels


def _labels(source: AbstractSource, labels_from: str | None) -> Labels | None:
    """Return the labels that the option asks for.

    Raises:
        DataError: if there are none of the kind that is asked for.
    """
    if labels_from is None:
        return read_labels(source)
    if labels_from == "folders":
        labels: Labels | None = labels_by_folder(source)
        missing = "no image in a subfolder, whose name would be its class"
    elif labels_from == "json":
        labels, missing = read_labels(source), "no labels of its images in dataset.json"
    else:
        return read_csv_labels(Path(labels_from), source)
    if labels is None or (source.images and not labels.by_name):
        raise DataError(f"--labels-from {labels_from}: {source.path} has {missing}")
    return labels


def _labels_in_use(
    labels: Labels, records: Sequence[Mapping[str, object]], source: AbstractSource
) -> Labels:
    """Return the labels of the images in the new set; warn if some are missing or all are equal."""
    used = {str(record["source"]) for record in records}
    by_name = {name: label for name, label in labels.by_name.items() if name in used}
    if len(by_name) < len(used):
        logger.warning(
            "%d of %d images have no label; --labels-from json leaves them out, which training "
            "with --cond needs",
            len(used) - len(by_name),
            len(used),
        )
    classes = {label for label in by_name.values() if isinstance(label, int)}
    if len(classes) == 1 and len(by_name) == len(used):
        logger.warning("all images of %s are of one class, so --cond has no effect", source.path)
    return replace(labels, by_name=by_name)


def _write(
    archive: ResumableZip,
    source: str,
    result: _PreparedImage | str,
    *,
    num_before: int,
    suffix: str,
) -> dict[str, Any]:
    """Add an image to the zip, or only the reason why it is left out; return the facts about it.

    Args:
        archive: the zip.
        source: name of the image in its source.
        result: the image, or the reason.
        num_before: number of images in the zip.
        suffix: ending of the image's name.
    """
    if isinstance(result, str):
        facts: dict[str, Any] = {"source": source, "reason": result}
        archive.add(facts)
        return facts
    name = f"{num_before // 1000:05d}/img{num_before:08d}{suffix}"
    facts = {
        "name": name,
        "source": source,
        "size": result.size,
        "mode": result.mode,
        "steps": result.steps,
        "crc32": f"{zlib.crc32(result.content):08x}",
        "is_enlarged": result.is_enlarged,
    }
    archive.add(facts, name, result.content)
    return facts


def _json(content: dict[str, object]) -> bytes:
    """Encode an object, with one line per item of its lists."""
    lines = []
    for key, value in content.items():
        text = json.dumps(value)
        if isinstance(value, list) and value:
            text = "[\n" + ",\n".join(json.dumps(item) for item in value) + "\n]"
        lines.append(f"{json.dumps(key)}: {text}")
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode()


def _unusable_file(name: str, reason: str) -> DataError:
    return DataError(f"{name}: {reason}", fix="repair or remove the file, or pass --on-bad skip")
