"""PNG files with 16 bits per channel, which Pillow reads and writes for grey only.

Source: the PNG specification (W3C, third edition): sections 9 (filtering) and 11 (chunks).
"""

import io
import struct
import zlib

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_COLOR_TYPES = {1: 0, 3: 2, 4: 6}  # grey, RGB, RGBA
_UP = 2  # the filter that stores the difference to the row above
_LOW_BYTES = {"RGB;16B": "RGB;16L", "RGBA;16B": "RGBA;16L"}


def encode(pixels: NDArray[np.uint16], *, compress_level: int = 6) -> bytes:
    """Encode uint16 [H, W, C], C 1 (grey), 3 (RGB) or 4 (RGBA), as PNG. It is deterministic.

    Args:
        pixels: alpha is straight, as the format wants it.
        compress_level: from 0 (large and fast) to 9 (small and slow).
    """
    height, width, channels = pixels.shape
    rows = np.ascontiguousarray(pixels.astype(">u2")).view(np.uint8).reshape(height, -1)
    filtered = np.empty((height, rows.shape[1] + 1), np.uint8)
    filtered[:, 0] = _UP
    filtered[0, 1:] = rows[0]
    filtered[1:, 1:] = rows[1:] - rows[:-1]  # modulo 256
    header = struct.pack(">IIBBBBB", width, height, 16, _COLOR_TYPES[channels], 0, 0, 0)
    chunks = (
        (b"IHDR", header),
        (b"IDAT", zlib.compress(filtered.tobytes(), compress_level)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def is_sixteen_bits(data: bytes) -> bool:
    """Return whether a file is a PNG with 16 bits per channel."""
    return data[:4] == b"\x89PNG" and data[12:16] == b"IHDR" and data[24:25] == b"\x10"


def decode(data: bytes) -> NDArray[np.uint16]:
    """Decode a PNG of 16 bits per channel: uint16 [H, W, C], C 1, 3 or 4, with straight alpha.

    Grey with alpha becomes RGBA, and a transparent color (the chunk tRNS) is ignored. Pillow keeps
    one byte of each channel of color, so its decoder is run with other arrangements of the bytes:
    once for the high and once for the low ones.

    Raises:
        OSError, SyntaxError, ValueError: if the file is damaged, as Pillow does.
    """
    with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
        if image.mode.startswith("I"):
            return np.asarray(image).astype(np.uint16)[:, :, None]
        ((_, _, _, arrangement),) = image.tile
    if arrangement == "LA;16B":  # the two bytes of grey, and those of alpha, as four channels
        grey_and_alpha = _combined(*np.split(_decode_as(data, "RGBA").reshape(-1, 2), 2, axis=1))
        return grey_and_alpha.reshape(image.height, image.width, 2)[:, :, [0, 0, 0, 1]]
    high = _decode_as(data, str(arrangement))
    return _combined(high, _decode_as(data, _LOW_BYTES[str(arrangement)]))


def _combined(high: NDArray[np.uint8], low: NDArray[np.uint8]) -> NDArray[np.uint16]:
    return high.astype(np.uint16) * np.uint16(256) + low


def _decode_as(data: bytes, arrangement: str) -> NDArray[np.uint8]:
    """Decode a PNG, with another arrangement of the bytes of a pixel than the file says."""
    with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
        image.tile = [(name, box, offset, arrangement) for name, box, offset, _ in image.tile]  # type: ignore[misc]
        image.load()
        return np.asarray(image)
