"""Small numbers side by side, in as few bits as they need."""

import numpy as np
from numpy.typing import NDArray

# numbers that together fill whole bytes, whatever their width
_GROUP = 8


def bits_for(n: int) -> int:
    """How many bits the numbers from 0 to ``n - 1`` need, at least 1."""
    return max(1, int(n - 1).bit_length())


def packed_bytes(n: int, bits: int) -> int:
    """How many bytes `pack` makes of ``n`` numbers."""
    return -(-n * bits // 8)


def pack(numbers: NDArray, bits: int) -> NDArray[np.uint8]:
    """``numbers`` (n,), each from 0 to ``2**bits - 1``, in ``bits`` bits each, the lowest first."""
    if bits == 8:
        return numbers.astype(np.uint8)
    groups = -(-len(numbers) // _GROUP)
    padded = np.zeros(groups * _GROUP, np.uint32)
    padded[: len(numbers)] = numbers
    padded = padded.reshape(groups, _GROUP)
    # room for the word of the last number
    out = np.zeros((groups, bits + 4), np.uint8)
    for place in range(_GROUP):
        byte, shift = divmod(place * bits, 8)
        word = padded[:, place].astype(np.uint64) << np.uint64(shift)
        for part in range((bits + shift + 7) // 8):
            out[:, byte + part] |= ((word >> np.uint64(8 * part)) & np.uint64(255)).astype(np.uint8)
    return out[:, :bits].reshape(-1)[: packed_bytes(len(numbers), bits)]


def unpack(packed: NDArray[np.uint8], bits: int, start: int, stop: int) -> NDArray[np.unsignedinteger]:
    """The numbers from ``start`` to ``stop`` of what `pack` made, in the smallest type that fits."""
    if bits == 8:
        return packed[start:stop]
    dtype = np.uint8 if bits < 8 else np.uint16 if bits <= 16 else np.uint32
    first, last = start // _GROUP, -(-stop // _GROUP)
    groups = np.zeros((last - first, bits), np.uint8)
    there = packed[first * bits : last * bits]
    groups.reshape(-1)[: len(there)] = there
    out = np.empty((last - first, _GROUP), dtype)
    wide = np.uint16 if bits < 8 else np.uint64
    mask = wide((1 << bits) - 1)
    for place in range(_GROUP):
        byte, shift = divmod(place * bits, 8)
        word = groups[:, byte].astype(wide)
        for part in range(1, (bits + shift + 7) // 8):
            word |= groups[:, byte + part].astype(wide) << wide(8 * part)
        out[:, place] = (word >> wide(shift)) & mask
    return out.reshape(-1)[start - first * _GROUP : stop - first * _GROUP]
