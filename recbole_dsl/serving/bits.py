"""Small numbers side by side, in as few bits as they need."""

import numpy as np
from numpy.typing import NDArray

# numbers that together fill whole bytes, whatever their width
_GROUP = 8
# bits of the widest number that a word of eight bytes has wherever in its first byte it begins
WIDEST = 56


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


def put(packed: NDArray[np.uint8], starts: NDArray[np.int64], numbers: NDArray) -> None:
    """Write ``numbers`` (n,) into ``packed``, each from the bit that its start names, over zeros.

    Args:
        packed: of `padded_bytes`.
        starts: (n,) bits from the beginning.
        numbers: below ``2**WIDEST``, no two at the same bits.
    """
    words = numbers.astype(np.uint64) << (starts & 7).astype(np.uint64)
    places = starts >> 3
    while words.any():
        # bits do not meet, so that a sum is their union
        np.add.at(packed, places, words.astype(np.uint8))
        words, places = words >> np.uint64(8), places + 1


def get(packed: NDArray[np.uint8], starts: NDArray[np.int64], bits: int | NDArray) -> NDArray[np.uint64]:
    """The numbers (n,) of ``bits`` bits, one for all or (n,), that `put` wrote at ``starts`` (n,)."""
    words = np.ndarray((len(packed) - 7,), "<u8", packed, strides=(1,))
    masks = (np.uint64(1) << np.asarray(bits, np.uint64)) - np.uint64(1)
    return (words[starts >> 3] >> (starts & 7).astype(np.uint64)) & masks


def ones_before(packed: NDArray[np.uint8], places: NDArray) -> NDArray[np.int64]:
    """(n,) how many bits of ``packed``, of `padded_bytes`, are set before each of the bits ``places`` (n,)."""
    words = packed.view("<u8")
    before = np.zeros(len(words) + 1, np.int64)
    np.cumsum(_ones_of(words), out=before[1:])
    at = places >> 6
    masks = (np.uint64(1) << (places & 63).astype(np.uint64)) - np.uint64(1)
    return before[at] + _ones_of(words[at] & masks)


def padded_bytes(n_bits: int) -> int:
    """How many bytes `put` and `get` need for ``n_bits``: whole words, with a word behind the last bit."""
    return 8 * (n_bits // 64 + 2)


def _ones_of(words: NDArray[np.uint64]) -> NDArray[np.integer]:
    """(n,) how many bits of each word are set."""
    try:
        return np.bitwise_count(words)
    except AttributeError:  # NumPy 1
        return SET_BITS[words.view(np.uint8).reshape(-1, 8)].sum(1)


# how many bits of each byte are set
SET_BITS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(1, dtype=np.uint8)
