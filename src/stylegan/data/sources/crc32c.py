"""The checksum CRC-32C (Castagnoli), computed with NumPy."""

import functools

import numpy as np
from numpy.typing import NDArray

_POLYNOMIAL = 0x82F63B78  # reflected
_BLOCK = 1024  # bytes
_BLOCKS_AT_ONCE = 1024
_SHORT = 64  # bytes


def crc32c(data: bytes | memoryview) -> int:
    """Return the checksum of bytes.

    The checksum is linear: each byte of a block contributes a value that depends only on the byte
    and its position, so that the values of many blocks are looked up at once.

    Source: RFC 3720, section 12.1 and appendix B.4.
    """
    first, second, third, fourth, last = _rows()
    if len(data) < _SHORT:
        state = 0xFFFFFFFF
        for byte in bytes(data):
            state = (state >> 8) ^ last[(state ^ byte) & 0xFF]
        return state ^ 0xFFFFFFFF
    # The initial state is that of inverting the first four bytes, and zeros before them change
    # nothing then.
    padded = np.zeros(-(-len(data) // _BLOCK) * _BLOCK, np.uint8)
    start = len(padded) - len(data)
    padded[start:] = np.frombuffer(data, np.uint8)
    padded[start : start + 4] ^= 0xFF
    blocks = padded.reshape(-1, _BLOCK)
    position = np.arange(_BLOCK)
    state = 0
    for index in range(0, len(blocks), _BLOCKS_AT_ONCE):
        values = _tables()[position, blocks[index : index + _BLOCKS_AT_ONCE]]
        for value in np.bitwise_xor.reduce(values, axis=1).tolist():
            state = (
                first[state & 0xFF]
                ^ second[state >> 8 & 0xFF]
                ^ third[state >> 16 & 0xFF]
                ^ fourth[state >> 24]
                ^ value
            )
    return state ^ 0xFFFFFFFF


@functools.cache
def _tables() -> NDArray[np.uint32]:
    """Return what each byte contributes at each position of a block, uint32 [_BLOCK, 256]."""
    table: NDArray[np.uint32] = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = (table >> np.uint32(1)) ^ (table & np.uint32(1)) * np.uint32(_POLYNOMIAL)
    rows = [table]
    while len(rows) < _BLOCK:
        rows.append((rows[-1] >> 8) ^ table[rows[-1] & 0xFF])
    return np.stack(rows[::-1])


@functools.cache
def _rows() -> list[list[int]]:
    """Return the tables of the first four positions of a block, and of the last."""
    rows: list[list[int]] = _tables()[[0, 1, 2, 3, -1]].tolist()
    return rows
