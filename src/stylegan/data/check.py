"""What a training set must look like, and which files are in its way."""

import hashlib
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from stylegan.data.readers import (
    RECORD_NAME,
    AbstractSource,
    Label,
    Mode,
    Progress,
    decode,
    map_in_order,
    num_threads,
)
from stylegan.errors import ConfigError, DataError

SMALLEST_RESOLUTION = 4
"""Side of the image in pixels that the networks start from."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What one file holds.

    Attributes:
        name: relative, with forward slashes.
        num_bytes: size of the file.
        crc32: checksum of its bytes.
        size: width and height once upright, in pixels.
        mode: the mode that decoding gives.
        stored_mode: Pillow's mode of the file.
        reason: why it cannot be decoded, or None; then size and modes tell nothing.
    """

    name: str
    num_bytes: int
    crc32: int
    size: tuple[int, int] = (0, 0)
    mode: Mode = "RGB"
    stored_mode: str = ""
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Which files make up the training set.

    Attributes:
        side: of the square images as stored, in pixels.
        mode: L for a grey set, RGB for a color set.
        usable: in the set's order. Grey images of a color set are among them.
        bad: name and reason of each other file.
    """

    side: int
    mode: Mode
    usable: tuple[Entry, ...]
    bad: tuple[tuple[str, str], ...]


def examine(
    source: AbstractSource,
    *,
    workers: int | None = None,
    progress: Progress | None = None,
    trusts_record: bool = True,
) -> tuple[Entry, ...]:
    """Decode every image of a source once, in threads, and tell what each holds.

    The images of a zip that `prepare` made are not decoded: its record states their checksums,
    and the archive's directory must agree.

    Args:
        source: whose images to look at.
        workers: number of threads; None takes one per processor core.
        progress: is told how many images are done, and of how many.
        trusts_record: False decodes the images of a prepared zip as well.
    """
    recorded = read_record(source) if trusts_record else None
    if recorded is not None:
        if progress is not None:
            progress(len(recorded), len(recorded))
        return recorded
    entries = []
    found = map_in_order(
        lambda name: _examine_one(source, name),
        source.images,
        workers=num_threads(workers),
    )
    for entry in found:
        entries.append(entry)
        if progress is not None:
            progress(len(entries), len(source.images))
    return tuple(entries)


def _examine_one(source: AbstractSource, name: str) -> Entry:
    num_bytes, crc32 = source.stored_crc32(name) or (0, 0)
    try:
        data = source.read(name)
        num_bytes, crc32 = len(data), zlib.crc32(data)
        decoded = decode(data)
    except DataError as error:
        return Entry(name=name, num_bytes=num_bytes, crc32=crc32, reason=error.found)
    return Entry(
        name=name,
        num_bytes=num_bytes,
        crc32=crc32,
        size=decoded.image.size,
        mode="L" if decoded.image.mode == "L" else "RGB",
        stored_mode=decoded.mode,
    )


def read_record(source: AbstractSource) -> tuple[Entry, ...] | None:
    """Return the entries that `prepare` recorded, or None where there is no record that fits.

    A record fits if it names exactly the images that are there, with their checksums.
    """
    record = source.read_json(RECORD_NAME)
    if not isinstance(record, dict):
        return None
    try:
        side, mode = record["options"]["resolution"], record["mode"]
        if not isinstance(side, int) or mode not in ("L", "RGB"):
            return None
        recorded = {image["name"]: int(image["crc32"], 16) for image in record["images"]}
    except (KeyError, TypeError, ValueError):
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
                size=(side, side),
                mode=mode,
                stored_mode=mode,
            )
        )
    return tuple(entries)


def preparation(source: AbstractSource) -> dict[str, object] | None:
    """Return crop, filter and background that `prepare` recorded; None for sets it did not make.

    They change the pixels, and with them every metric.
    """
    record = source.read_json(RECORD_NAME)
    options = record.get("options") if isinstance(record, dict) else None
    if not isinstance(options, dict):
        return None
    return {name: options.get(name) for name in ("crop", "filter", "background")}


def require_power_of_two(resolution: int) -> None:
    """Refuse a resolution that no network has.

    Raises:
        ConfigError: if it is not a power of two from 4.
    """
    if not _is_resolution(resolution):
        raise ConfigError(
            f"resolution {resolution}",
            expected=f"a power of two from {SMALLEST_RESOLUTION}",
            fix=f"take {_near_power_of_two(resolution)}",
        )


def judge(
    source: AbstractSource, entries: tuple[Entry, ...], *, resolution: int | None = None
) -> Verdict:
    """Choose the images that can be trained on together.

    All must be square and of one size, the most common one that fits: `resolution`, or that
    times a power of two. Then the majority decides whether the set is grey or color: grey
    images fit in a color set, as converting them loses nothing, but not the other way round.

    Args:
        source: the entries' source; its strangers are bad files as well.
        entries: from `examine`.
        resolution: to train at, in pixels; None takes the size of the images.

    Raises:
        ConfigError: if `resolution` is not a power of two from 4.
    """
    if resolution is not None:
        require_power_of_two(resolution)
    reasons = dict.fromkeys(source.strangers, "not an image (by the name's ending)")
    reasons |= {entry.name: entry.reason for entry in entries if entry.reason is not None}
    decodable = [entry for entry in entries if entry.reason is None]
    sizes = Counter(entry.size for entry in decodable if _fits(entry.size, resolution))
    # The larger size wins a tie, so that the answer does not depend on the order of the files.
    side = max(sizes, key=lambda size: (sizes[size], size))[0] if sizes else 0
    right_size = []
    for entry in decodable:
        if entry.size == (side, side):
            right_size.append(entry)
        else:
            reasons[entry.name] = _why_wrong_size(entry.size, side, resolution)
    num_color = sum(entry.mode == "RGB" for entry in right_size)
    mode: Mode = "RGB" if 2 * num_color >= len(right_size) else "L"
    usable = []
    for entry in right_size:
        if mode == "RGB" or entry.mode == "L":
            usable.append(entry)
        else:
            reasons[entry.name] = f"wrong mode {entry.stored_mode} (most images are grey)"
    return Verdict(side=side, mode=mode, usable=tuple(usable), bad=tuple(sorted(reasons.items())))


def fingerprint(entries: Iterable[Entry], labels: Mapping[str, Label] | None) -> str:
    """Return the SHA-256 over names, sizes, checksums and labels of images, in hexadecimal.

    It does not depend on where the set lies, nor on whether it is a folder or a zip.

    Args:
        entries: the images, in the set's order.
        labels: by name; None for a set without.
    """
    digest = hashlib.sha256()
    for entry in entries:
        label = None if labels is None else labels.get(entry.name)
        line = f"{entry.name}\0{entry.num_bytes}\0{entry.crc32:08x}\0{label}\n"
        digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _is_resolution(side: int) -> bool:
    return side >= SMALLEST_RESOLUTION and side & (side - 1) == 0


def _fits(size: tuple[int, int], resolution: int | None) -> bool:
    width, height = size
    return width == height and _is_resolution(width) and width >= (resolution or 0)


def _why_wrong_size(size: tuple[int, int], side: int, resolution: int | None) -> str:
    width, height = size
    if width != height:
        why = "not square"
    elif not _is_resolution(width):
        why = "not a power of two"
    elif width < (resolution or 0):
        why = f"below the resolution {resolution}"
    else:
        why = f"most images are {side}x{side}"
    return f"wrong size {width}x{height} ({why})"


def _near_power_of_two(number: int) -> int:
    return 1 << max(number.bit_length() - 1, SMALLEST_RESOLUTION.bit_length() - 1)
