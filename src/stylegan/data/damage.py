"""Detects image files that end in blank bytes, as left by interrupted copies and full disks.

Decoders accept many of these files and fill the rest of the picture with one color.
"""

from collections.abc import Iterator

_MIN_BLANK = 64
_MIN_BLANK_FRACTION = 0.01
"""Of compressed data; shorter runs of one byte occur in intact files."""

_START_OF_SCAN, _END_OF_IMAGE = b"\xff\xda", b"\xff\xd9"


def num_blank_bytes(data: bytes, image_format: str | None) -> int:
    """Return the number of blank bytes at the end of the pixel data; 0 if the file is intact.

    Source: ITU T.81 (JPEG), annex B: compressed data contain no marker, and end with EOI. RIFF and
    ISO 14496-12 state the length of each part, so that padding after the pixels is not counted.

    Args:
        data: the file.
        image_format: as Pillow names it. Formats other than JPEG, WebP and AVIF have checksums or
            uncompressed pixels, which may end with one color.
    """
    match image_format:
        case "JPEG" | "MPO":
            is_complete = data.rfind(_END_OF_IMAGE) > data.rfind(_START_OF_SCAN)
            return 0 if is_complete else _num_blank(data)
        case "JPEG2000":  # its markers have the same numbers, but can occur within other boxes
            return 0 if data.rstrip(b"\0").endswith(_END_OF_IMAGE) else _num_blank(data)
        case "WEBP":
            parts = [part for name, part in _riff(data) if name in (b"VP8 ", b"VP8L", b"ALPH")]
        case "AVIF" | "HEIF":
            parts = [part for name, part in _boxes(data) if name == b"mdat"]
        case _:
            return 0
    for part in parts:
        num = _num_blank(part)
        if num >= max(_MIN_BLANK, _MIN_BLANK_FRACTION * len(part)):
            return num
    return 0


def _num_blank(data: bytes) -> int:
    """Return how many bytes at the end are all 0, or all 255."""
    return max(len(data) - len(data.rstrip(blank)) for blank in (b"\0", b"\xff"))


def _riff(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield name and content of the chunks of a RIFF file, and of those within frames."""
    position = 12
    while position + 8 <= len(data):
        name = data[position : position + 4]
        size = int.from_bytes(data[position + 4 : position + 8], "little")
        content = data[position + 8 : position + 8 + size]
        yield name, content
        if name == b"ANMF":  # a frame of an animation: 16 bytes, then chunks
            yield from _riff(content[4:])
        position += 8 + size + size % 2


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield name and content of the top-level boxes of an ISO base media file (AVIF, HEIC)."""
    position = 0
    while position + 8 <= len(data):
        size = int.from_bytes(data[position : position + 4], "big")
        start = 8
        if size == 1:
            size, start = int.from_bytes(data[position + 8 : position + 16], "big"), 16
        end = position + size if size >= start else len(data)
        yield data[position + 4 : position + 8], data[position + start : end]
        position = end
