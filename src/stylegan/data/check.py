"""Which images of a source can be trained on together, and why the others cannot."""

import collections
import contextlib
import hashlib
import itertools
import json
import logging
import statistics
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal

from stylegan.data.array_files import can_convert, is_picture_format
from stylegan.data.labels import Label
from stylegan.data.readers import Raster, Reading, map_in_order, num_threads, read_raster
from stylegan.data.sources.base import AbstractSource
from stylegan.data.sources.files import LABELS_NAME, RECORD_NAME
from stylegan.download import cache_folder
from stylegan.errors import ConfigError, DataError, command_line
from stylegan.files import printable_name, write_atomic
from stylegan.image_size import SMALLEST, ImageSize, Resolution, require_usable
from stylegan.pixel_format import PixelFormat
from stylegan.progress import Counter

logger = logging.getLogger(__name__)

OnBad = Literal["limit", "skip", "fail"]
MAX_LEFT_OUT = 0.1
"""Fraction of the image files that "limit" leaves out at most."""
MAX_UNREADABLE = 0.01
"""Fraction of the images that may become unreadable while a set is used."""
_NAMES_SHOWN = 5
MAX_SUGGESTED = 1024


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One image file.

    Attributes:
        name: relative path, with forward slashes.
        num_bytes: size of the file.
        crc32: checksum of the file.
        size: width and height in pixels, after rotation by EXIF.
        pixels: format of the decoded image.
        stored_mode: Pillow's mode of the file.
        format: of the file, as of `readers.stored_format`.
        pixel_digest: 16 bytes that are equal for equal pixels, if `examine` was to compute them.
        is_clipped: whether floats outside the stated range were clipped.
        reason: why the file cannot be decoded; then size and modes are not set. Else None.
    """

    name: str
    num_bytes: int
    crc32: int
    size: tuple[int, int] = (0, 0)
    pixels: PixelFormat = field(default_factory=PixelFormat)
    stored_mode: str = ""
    format: str = ""
    pixel_digest: bytes = b""
    is_clipped: bool = False
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The files that form a training set.

    Attributes:
        size: of the images as stored; None if no image is usable.
        pixels: format of the set, to which all images are converted.
        usable: sorted by name. Grey images of a color set are included.
        bad: name and reason of each other file.
    """

    size: ImageSize | None
    pixels: PixelFormat
    usable: tuple[Entry, ...]
    bad: tuple[tuple[str, str], ...]


def examine(
    source: AbstractSource,
    *,
    reading: Reading | None = None,
    workers: int | None = None,
    progress: Counter | None = None,
    trusts_record: bool = True,
    with_digests: bool = False,
) -> tuple[Entry, ...]:
    """Decode every image of a source once, in threads.

    The images of a prepared zip are not decoded if the checksums in its record agree with the
    directory of the archive.

    Args:
        source: whose images to decode.
        reading: how files become pixels; None for the defaults.
        workers: number of threads; None uses one per processor core.
        progress: called with the number of images done and their total.
        trusts_record: False decodes the images of a prepared zip as well.
        with_digests: compute the digests of the pixels; needs `trusts_record` False.
    """
    recorded = read_record(source) if trusts_record else None
    if recorded is not None:
        if progress is not None:
            progress(len(recorded), len(recorded))
        return recorded
    entries = []
    for entry in map_in_order(
        lambda name: _examine_one(
            source, name, reading=reading or Reading(), with_digest=with_digests
        ),
        source.images,
        workers=num_threads(workers),
    ):
        entries.append(entry)
        if progress is not None:
            progress(len(entries), len(source.images))
    return tuple(entries)


def _examine_one(
    source: AbstractSource, name: str, *, reading: Reading, with_digest: bool
) -> Entry:
    num_bytes, crc32 = source.stored_crc32(name) or (0, 0)
    try:
        data = source.read(name)
        num_bytes, crc32 = len(data), zlib.crc32(data)
        raster = read_raster(data, reading)
    except DataError as error:
        return Entry(name=name, num_bytes=num_bytes, crc32=crc32, reason=error.message)
    return Entry(
        name=name,
        num_bytes=num_bytes,
        crc32=crc32,
        size=(raster.stored.shape[2], raster.stored.shape[1]),
        pixels=raster.pixels,
        stored_mode=raster.mode,
        format=raster.format,
        pixel_digest=_pixel_digest(raster) if with_digest else b"",
        is_clipped=raster.is_clipped,
    )


def _pixel_digest(raster: Raster) -> bytes:
    """Return 16 bytes that are equal for equal pixels; a grey image equals its RGB form."""
    stored = raster.stored
    if raster.pixels.num_channels == 1:
        stored = stored.expand(3, -1, -1)
    facts = f"{raster.pixels.depth}{list(stored.shape)}".encode()
    content = stored.contiguous().numpy().tobytes()
    return hashlib.blake2b(facts + content, digest_size=16).digest()


def duplicates(entries: Iterable[Entry]) -> list[tuple[str, ...]]:
    """Return groups of names of images with equal pixels, by the digests of `examine`."""
    hashed = sorted(
        (entry for entry in entries if entry.pixel_digest), key=lambda entry: entry.pixel_digest
    )
    groups = itertools.groupby(hashed, key=lambda entry: entry.pixel_digest)
    names = [tuple(entry.name for entry in group) for _, group in groups]
    return sorted(group for group in names if len(group) > 1)


def formats_of(entries: Iterable[Entry]) -> dict[str, int]:
    """Return the number of images in each file format, the most common first."""
    return dict(collections.Counter(entry.format for entry in entries).most_common())


def read_record(source: AbstractSource) -> tuple[Entry, ...] | None:
    """Return the entries that `prepare` recorded, or None if there is no valid record.

    A record is valid if it names exactly the images of the source, with their checksums.
    """
    record = source.read_json(RECORD_NAME)
    if not isinstance(record, dict):
        return None
    try:
        resolution, mode = record["options"]["resolution"], record["mode"]
        if not isinstance(resolution, Resolution):
            return None
        size = ImageSize.of(resolution)
        if "pixels" in record:
            pixels = PixelFormat.from_json(record["pixels"])
        else:  # before version 0.3
            pixels = PixelFormat(num_channels={"L": 1, "RGB": 3}[mode])
        recorded = {image["name"]: int(image["crc32"], 16) for image in record["images"]}
    except (ConfigError, KeyError, TypeError, ValueError):
        return None
    entries = []
    if tuple(sorted(recorded)) != source.images:
        return None
    for name in source.images:
        stored = source.stored_crc32(name)
        if stored is None or stored[1] != recorded[name]:
            return None
        entries.append(
            Entry(
                name=name,
                num_bytes=stored[0],
                crc32=stored[1],
                size=(size.width, size.height),
                pixels=pixels,
                stored_mode=str(pixels),
                format=pixels.suffix[1:].upper(),
            )
        )
    return tuple(entries)


def reading_of_record(source: AbstractSource, reading: Reading | None) -> Reading:
    """Return how the images of a source are read: in a prepared zip, as its record states."""
    recorded = read_record(source)
    if not recorded:
        return reading or Reading()
    pixels = recorded[0].pixels
    return replace(
        reading or Reading(),
        range=pixels.range,
        alpha="none" if pixels.num_channels == 4 and not pixels.has_alpha else "auto",
    )


def verify_checksums(source: AbstractSource, *, progress: Counter | None = None) -> list[str]:
    """Verify the checksum of each image of a prepared zip, and return the errors.

    The zip is read once: the result is cached until its size or modification time changes.
    """
    if read_record(source) is None or not source.path.is_file():
        return []
    facts = source.path.stat()
    state = [facts.st_size, facts.st_mtime_ns]
    key = hashlib.sha256(str(source.path.resolve()).encode("utf-8", "surrogateescape"))
    cached = cache_folder() / "verified" / f"{key.hexdigest()[:32]}.json"
    damaged = _cached_damage(cached, state)
    if damaged is None:
        damaged = []
        problems = map_in_order(
            partial(_read_error, source), source.images, workers=num_threads(None)
        )
        for num_done, problem in enumerate(problems, 1):
            damaged += [problem] if problem is not None else []
            if progress is not None:
                progress(num_done, len(source.images))
        with contextlib.suppress(OSError):  # a cache that cannot be written
            write_atomic(cached, json.dumps({"zip": state, "damaged": damaged}))
    return damaged


def _cached_damage(path: Path, state: list[int]) -> list[str] | None:
    """Return the errors that were found in a zip in this state; None if it was not verified."""
    try:
        match json.loads(path.read_text()):
            case {"zip": recorded, "damaged": [*damaged]} if recorded == state:
                return [str(line) for line in damaged]
    except (OSError, ValueError):
        pass
    return None


def _read_error(source: AbstractSource, name: str) -> str | None:
    """Return why an image cannot be read; None if it can."""
    try:
        source.read(name)
    except DataError as error:
        return str(error.at(f"{name} in {source.path}"))
    return None


def check_num_unreadable(num: int, num_images: int, *, path: str | Path, reason: str) -> None:
    """Check that not too many images of a set have become unreadable; one always may.

    Raises:
        DataError: if more than `MAX_UNREADABLE` of the images cannot be read.
    """
    if num > max(1, MAX_UNREADABLE * num_images):
        raise DataError(
            f"{path}: {num} of {num_images} images cannot be read any more ({reason})",
            fix="copy the set again, or make it again with `stylegan data prepare`",
        )


def check_left_out(
    source: AbstractSource, bad: Iterable[tuple[str, str]], *, num_usable: int, on_bad: OnBad
) -> None:
    """Check that not too many files are left out.

    Args:
        source: of the files.
        bad: name and reason of each file that is left out.
        num_usable: the number of images that are used.
        on_bad: "skip" allows any number; "limit" allows `MAX_LEFT_OUT` of the images, without the
            other files of the source; "fail" allows no file at all.

    Raises:
        DataError: if there are more.
    """
    bad = sorted(bad)
    if on_bad == "fail" and bad:
        name, reason = bad[0]
        raise DataError(
            f"{source.path} has {len(bad)} unusable files, the first is {name}: {reason}",
            fix=f"see {command_line('data', 'check', source.path)}, or pass --on-bad skip",
        )
    num_bad = len({name for name, _ in bad} - {name for name, _ in source.left_out})
    num_images = num_usable + num_bad
    if on_bad == "limit" and num_usable and num_bad > MAX_LEFT_OUT * num_images:
        raise DataError(
            f"{source.path}: {num_bad} of {num_images} images cannot be used, which is more than "
            f"{MAX_LEFT_OUT:.0%}",
            fix="see the reasons above, or pass --on-bad skip to use the others",
        )


def listing_digest(source: AbstractSource) -> str:
    """Return the SHA-256 over names and states of the files of a source, in hexadecimal.

    The state of a file is its stored checksum, or its size and modification time, so that no file
    is read. Unlike `fingerprint`, it differs between copies of the same images.
    """
    digest = hashlib.sha256(str(source.path.resolve()).encode("utf-8", "surrogateescape"))
    for name in (*source.images, LABELS_NAME):
        state = source.stored_crc32(name) or _modification(source.path / name, source.path)
        digest.update(f"{name}\0{state}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _modification(*paths: Path) -> tuple[int, int]:
    """Return size in bytes and modification time in ns of the first of the files that exists."""
    for path in paths:
        with contextlib.suppress(OSError):
            facts = path.stat()
            return facts.st_size, facts.st_mtime_ns
    return 0, 0


def preparation(source: AbstractSource) -> dict[str, object] | None:
    """Return crop, filter and background that `prepare` recorded; None for other sets.

    They change the pixels, and so every metric.
    """
    record = source.read_json(RECORD_NAME)
    options = record.get("options") if isinstance(record, dict) else None
    if not isinstance(options, dict):
        return None
    return {name: options.get(name) for name in ("crop", "filter", "background")}


def previous_power_of_two(number: int) -> int:
    """Return the largest power of two that is not above a number, at least 4."""
    return 1 << max(number.bit_length() - 1, SMALLEST.bit_length() - 1)


def suggested_resolution(entries: Iterable[Entry]) -> int:
    """Return the largest power of two below the median of the images' shorter sides.

    It is at most `MAX_SUGGESTED`, the largest at which results have been published.
    """
    sides = [min(entry.size) for entry in entries if entry.reason is None]
    median = int(statistics.median(sides)) if sides else SMALLEST
    return previous_power_of_two(min(median, MAX_SUGGESTED))


def select(
    source: AbstractSource,
    entries: tuple[Entry, ...],
    *,
    reading: Reading | None = None,
    resolution: Resolution | ImageSize | None = None,
) -> Selection:
    """Select the images that can be trained on together.

    All must be of one size: the most common one that is `resolution` times a power of two. Without
    a resolution, that is the size of the images if it is not square, can be doubled three times or
    more from its base, and all but `MAX_LEFT_OUT` of the images have it; otherwise the most common
    square size that is a power of two. Then the majority decides on the pixels: whether the set
    holds pictures or images of other channels, is grey or color, has alpha, and has 8 or 16 bits.
    Grey images are usable in a color set, as converting them loses nothing; color images are not
    usable in a grey set. Alpha of a minority is composed on white, and 16 bits of a minority are
    rounded.

    Args:
        source: the entries' source; the files that it leaves out count as bad.
        entries: from `examine`.
        reading: how files are read, if the entries are those of a record; None for the defaults.
        resolution: to train at; None: the size of the images.

    Raises:
        ConfigError: if no network has this resolution.
    """
    wanted = None if resolution is None else require_usable(resolution)
    reasons = dict(source.left_out)
    reasons |= {entry.name: entry.reason for entry in entries if entry.reason is not None}
    decodable = [entry for entry in entries if entry.reason is None]
    sizes = collections.Counter(_size(entry) for entry in decodable)
    # The larger size wins a tie, so that the result does not depend on the order of the files.
    by_number = sorted(sizes, key=lambda size: (sizes[size], size), reverse=True)
    fitting = [size for size in by_number if _fits(size, wanted, fraction=_fraction(sizes, size))]
    chosen = fitting[0] if fitting else None
    right_size = []
    for entry in decodable:
        if _size(entry) == chosen:
            right_size.append(entry)
        else:
            reasons[entry.name] = _why_wrong_size(_size(entry), chosen, wanted)
    reading = reading or Reading()
    pixels = format_of_most([as_read(entry.pixels, reading) for entry in right_size])
    most = {"L": "grey"}.get(str(pixels), str(pixels))
    usable = []
    for entry in right_size:
        if can_convert(as_read(entry.pixels, reading), pixels):
            usable.append(entry)
        else:
            reasons[entry.name] = f"wrong mode {entry.stored_mode} (most images are {most})"
    return Selection(
        size=chosen, pixels=pixels, usable=tuple(usable), bad=tuple(sorted(reasons.items()))
    )


def format_of_most(formats: Sequence[PixelFormat], *, any_color: bool = False) -> PixelFormat:
    """Return the format of a set of images with these formats; see `select`.

    Args:
        formats: of the images.
        any_color: make the set a color set if any image has color, instead of half of them.
    """
    others = collections.Counter(each for each in formats if not is_picture_format(each))
    pictures = [each for each in formats if is_picture_format(each)]
    if others and max(others.values()) > len(pictures):
        return max(others, key=lambda each: (others[each], str(each)))
    num_color = sum(each.num_channels > 1 for each in pictures)
    is_color = num_color > 0 if any_color else 2 * num_color >= len(pictures)
    has_alpha = is_color and 2 * sum(each.has_alpha for each in pictures) >= len(pictures) > 0
    num_deep = sum(each.depth == "uint16" for each in pictures)
    return PixelFormat(
        num_channels=4 if has_alpha else 3 if is_color else 1,
        depth="uint16" if 2 * num_deep > len(pictures) else "uint8",
        has_alpha=has_alpha,
    )


def as_read(pixels: PixelFormat, reading: Reading) -> PixelFormat:
    """Return the format in which a set of a format is read."""
    if pixels.has_alpha and reading.background is not None:
        pixels = replace(pixels, num_channels=3, has_alpha=False)
    if reading.depth == "uint8" and pixels.depth != "uint8":
        pixels = PixelFormat(num_channels=pixels.num_channels, has_alpha=pixels.has_alpha)
    return pixels


def group_by_reason(files: Iterable[tuple[str, str]], *, verb: str = "skipped") -> list[str]:
    """Summarize files: one line for each reason, with the first file names.

    Args:
        files: name and reason of each.
        verb: what was done with them.
    """
    names: dict[str, list[str]] = {}
    for name, reason in files:
        names.setdefault(reason, []).append(name)
    lines = []
    for reason, group in names.items():
        noun = "1 file" if len(group) == 1 else f"{len(group)} files"
        lines.append(f"{verb} {noun}: {reason} ({first_names(group)})")
    return lines


def first_names(names: Sequence[str]) -> str:
    """Return the first five names in one line, printable, and the number of the others."""
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return ", ".join(map(printable_name, names[:_NAMES_SHOWN])) + more


def fingerprint(entries: Iterable[Entry], labels: Mapping[str, Label] | None) -> str:
    """Return the SHA-256 over names, sizes, checksums and labels of images, in hexadecimal.

    It is the same for a folder and a zip of the same images, anywhere.

    Args:
        entries: the images, in the set's order.
        labels: by name; None for a set without labels.
    """
    digest = hashlib.sha256()
    for entry in entries:
        label = None if labels is None else labels.get(entry.name)
        line = f"{entry.name}\0{entry.num_bytes}\0{entry.crc32:08x}\0{label}\n"
        digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _size(entry: Entry) -> ImageSize:
    width, height = entry.size
    return ImageSize(height, width)


def _fraction(sizes: collections.Counter[ImageSize], size: ImageSize) -> float:
    return sizes[size] / sizes.total()


def _fits(size: ImageSize, wanted: ImageSize | None, *, fraction: float) -> bool:
    """Return whether images of a size, a fraction of all, can be trained on."""
    if wanted is not None:
        return size.factor_to(wanted) is not None
    return size.is_native and (size.is_square or fraction >= 1 - MAX_LEFT_OUT)


def _why_wrong_size(size: ImageSize, chosen: ImageSize | None, wanted: ImageSize | None) -> str:
    if wanted is not None and not wanted.is_power_of_two:
        if size.height < wanted.height or size.width < wanted.width:
            why = f"below the resolution {wanted}, height x width"
        elif size.factor_to(wanted) is None:
            why = f"not {wanted}, height x width, times a power of two"
        else:
            why = f"most images are {_width_first(chosen)}"
    elif chosen is not None and not chosen.is_square:
        why = f"most images are {_width_first(chosen)}"
    elif not size.is_square:
        why = "not square"
    elif not size.is_native:
        why = "not a power of two"
    elif wanted is not None and size.height < wanted.height:
        why = f"below the resolution {wanted.stored}"
    else:
        why = f"most images are {_width_first(chosen)}"
    return f"wrong size {_width_first(size)} ({why})"


def _width_first(size: ImageSize | None) -> str:
    """Return a size as image viewers show it."""
    return "0x0" if size is None else f"{size.width}x{size.height}"
