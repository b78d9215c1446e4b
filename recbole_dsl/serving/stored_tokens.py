"""The forms in which tokens are stored: as text, as compressed text, or as numbers where they are short."""

import zlib
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from recbole_dsl.serving.artifact import Artifact
from recbole_dsl.serving.bits import WIDEST, bits_for, get, padded_bytes, put
from recbole_dsl.serving.csr import Ids, offsets_of, smallest
from recbole_dsl.serving.token_code import MOST_PLACES, TokenCode

LONGEST = 2**16 - 1
# compressed text may expand to so many times its bytes; more is refused
_MOST_TIMES = 100
# numbers are preferred up to so many times the bytes of compressed text, as they need no decoding at load
_WORTH_DECODING = 2
_WORD = 8
# an odd multiplier without a pattern in its bits
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
# masks of the bytes of a word that belong to a token, by how many bytes it has left
_MASKS = np.array([(1 << (8 * n)) - 1 for n in range(_WORD + 1)], np.uint64)


class TextTokens:
    """Tokens as text.

    Args:
        text: (total,) uint8, the tokens one after the other.
        lengths: (n,) unsigned, the bytes of each.
    """

    def __init__(self, text: NDArray[np.uint8], lengths: NDArray[np.unsignedinteger]):
        self.text, self.lengths, self._offsets = text, lengths, offsets_of(lengths)

    @classmethod
    def read(cls, artifact: Artifact, side: str, n: int) -> "TextTokens":
        """The ``n`` tokens of ``side``.

        Raises:
            DSLError: if they are not texts.
        """
        if f"{side}.deflated" in artifact.arrays:
            lengths, text = _inflated(artifact, f"{side}.deflated", n)
        else:
            lengths = artifact.array(f"{side}.lengths", "u1 u2", (n,))
            text = artifact.array(f"{side}.text", "u1", (int(lengths.sum(dtype=np.int64)),))
        try:
            # valid as a whole, and no token begins within a character, so each is valid
            text.tobytes().decode()
            starts = offsets_of(lengths)[:-1][lengths > 0]
            if ((text[starts] & 0xC0) == 0x80).any():
                raise ValueError("cut in a character")
        except ValueError:
            artifact.refuse(f"{side}.text must be in UTF-8")
        return cls(text, lengths)

    def __len__(self) -> int:
        return len(self.lengths)

    def one(self, index: int) -> bytes:
        """The token ``index``, in UTF-8."""
        return self.text[self._offsets[index] : self._offsets[index + 1]].tobytes()

    def some(self, ids: Ids) -> list[bytes]:
        """The tokens ``ids`` (n,), faster than one by one."""
        text = self.text.tobytes()
        starts, ends = self._offsets[ids].tolist(), self._offsets[ids + 1].tolist()
        return [text[start:end] for start, end in zip(starts, ends)]

    def hashes(self) -> NDArray[np.uint64]:
        """(n,) a hash of each token."""
        return _hashes(self.text, self._offsets)

    def hashes_of(self, tokens: Sequence[bytes]) -> NDArray[np.uint64]:
        """(n,) the hashes of ``tokens``, of which some may be unknown; an unknown one may have any hash."""
        text = np.frombuffer(b"".join(tokens), np.uint8)
        return _hashes(text, offsets_of(np.array([len(token) for token in tokens], np.int64)))


class NumberedTokens:
    """Tokens as the numbers that a code gives them; read in the same ways as `TextTokens`.

    Args:
        code: what the numbers mean.
        widths: (parts,) uint8, the bits of the numbers of each part.
        packed: (bytes,) uint8, the numbers of the first part, then those of the next.
        n: how many tokens there are.
    """

    def __init__(self, code: TokenCode, widths: NDArray[np.uint8], packed: NDArray[np.uint8], n: int):
        self.code, self.widths, self.packed, self._n = code, widths, packed, n
        self._view = memoryview(packed)
        self._parts = [
            (int(start) * n, int(width)) for start, width in zip(offsets_of(widths).tolist(), widths.tolist())
        ]

    @classmethod
    def of(cls, tokens: TextTokens) -> "NumberedTokens | None":
        """``tokens`` as numbers; None if there is no code for them."""
        code = TokenCode.of(tokens.text, tokens.lengths)
        if code is None:
            return None
        numbers, n = code.of_texts(tokens.text, tokens.lengths), len(tokens)
        widths = np.array([bits_for(int(row.max()) + 1) for row in numbers], np.uint8)
        packed = np.zeros(padded_bytes(n * int(widths.sum())), np.uint8)
        stored = cls(code, widths, packed, n)
        for row, (start, width) in zip(numbers, stored._parts):
            put(packed, start + width * np.arange(n), row)
        return stored

    @classmethod
    def read(cls, artifact: Artifact, side: str, n: int) -> "NumberedTokens":
        """The ``n`` tokens of ``side``.

        Raises:
            DSLError: if they are not texts.
        """
        sizes = artifact.array(f"{side}.alphabet_sizes", "u1", (None,))
        if not 0 < len(sizes) <= MOST_PLACES or sizes.min() < 1:
            artifact.refuse(f"{side}.alphabet_sizes must be from 1 to {MOST_PLACES} numbers >= 1")
        alphabets = artifact.array(f"{side}.alphabets", "u1", (int(sizes.sum(dtype=np.int64)),))
        offsets = offsets_of(sizes).tolist()
        code = TokenCode([alphabets[a:b].tobytes() for a, b in pairwise(offsets)])
        if alphabets.min() < 1 or alphabets.max() > 127 or any(list(a) != sorted({*a}) for a in code.alphabets):
            artifact.refuse(f"{side}.alphabets must be of ASCII characters that ascend at each place")
        widths = artifact.array(f"{side}.widths", "u1", (len(code.parts),))
        if widths.min() < 1 or widths.max() > WIDEST:
            artifact.refuse(f"{side}.widths must be from 1 to {WIDEST}")
        packed = artifact.array(f"{side}.codes", "u1", (padded_bytes(n * int(widths.sum(dtype=np.int64))),))
        tokens = cls(code, widths, packed, n)
        if not code.are_texts(tokens._numbers(np.arange(n))):
            artifact.refuse(f"{side}.codes must be numbers of texts")
        return tokens

    def arrays(self) -> dict[str, NDArray]:
        """The arrays that `read` reads, by the last part of their names."""
        return {
            "alphabet_sizes": np.array([len(alphabet) for alphabet in self.code.alphabets], np.uint8),
            "alphabets": np.frombuffer(b"".join(self.code.alphabets), np.uint8),
            "widths": self.widths,
            "codes": self.packed,
        }

    def __len__(self) -> int:
        return self._n

    def one(self, index: int) -> bytes:
        numbers = []
        for start, width in self._parts:
            byte, shift = divmod(start + width * index, 8)
            word = int.from_bytes(self._view[byte : byte + 8], "little")
            numbers.append((word >> shift) & ((1 << width) - 1))
        return self.code.text(numbers)

    def some(self, ids: Ids) -> list[bytes]:
        return self.code.texts(self._numbers(ids))

    def hashes(self) -> NDArray[np.uint64]:
        return self._hashes(self._numbers(np.arange(self._n)))

    def hashes_of(self, tokens: Sequence[bytes]) -> NDArray[np.uint64]:
        nothing = [0] * len(self._parts)
        found = [self.code.of_text(token) or nothing for token in tokens]
        return self._hashes(np.array(found, np.uint64).reshape(len(tokens), len(self._parts)).T)

    def _numbers(self, ids: Ids) -> NDArray[np.uint64]:
        """(parts, n)"""
        return np.array([get(self.packed, start + width * ids, width) for start, width in self._parts], np.uint64)

    def _hashes(self, numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """A hash of each column of ``numbers`` (parts, n)."""
        width = self._parts[0][1]
        if len(numbers) == 1 and width + bits_for(self._n) <= 64:
            # in the highest bits, beside the id: no other token has it
            return numbers[0] << np.uint64(64 - width)
        hashes = np.zeros(numbers.shape[1], np.uint64)
        for row in numbers:
            hashes = (hashes ^ row) * _FACTOR
            hashes ^= hashes >> np.uint64(29)
        return hashes


StoredTokens = TextTokens | NumberedTokens


def stored_arrays(stored: StoredTokens) -> dict[str, NDArray]:
    """The arrays of the form that takes the fewest bytes, by the last part of their names."""
    if isinstance(stored, NumberedTokens):
        return stored.arrays()
    forms = [{"text": stored.text, "lengths": smallest(stored.lengths)}]
    content = stored.lengths.astype("<u2").tobytes() + stored.text.tobytes()
    deflated = np.frombuffer(zlib.compress(content), np.uint8)
    if len(content) <= _MOST_TIMES * len(deflated):
        forms.append({"deflated": deflated})
    best = min(forms, key=_bytes)
    numbered = NumberedTokens.of(stored)
    if numbered is not None and _bytes(numbered.arrays()) < _WORTH_DECODING * _bytes(best):
        return numbered.arrays()
    return best


def _bytes(arrays: dict[str, NDArray]) -> int:
    return sum(array.nbytes for array in arrays.values())


def _inflated(artifact: Artifact, name: str, n: int) -> tuple[NDArray[np.unsignedinteger], NDArray[np.uint8]]:
    """The lengths and the text of ``n`` tokens; no more is made of them than is believed."""
    deflated = artifact.array(name, "u1", (None,)).tobytes()
    most, stream = _MOST_TIMES * len(deflated), zlib.decompressobj()
    try:
        if 2 * n > most:
            raise ValueError("too many lengths")
        lengths = np.frombuffer(stream.decompress(deflated, 2 * n), "<u2")
        total = int(lengths.sum(dtype=np.int64))
        if len(lengths) != n or 2 * n + total > most:
            raise ValueError("too few lengths, or too much text")
        # one byte more would be one too many
        text = np.frombuffer(stream.decompress(stream.unconsumed_tail, total + 1), np.uint8)
        if len(text) != total or not stream.eof or stream.unused_data:
            raise ValueError("another length")
    except (zlib.error, ValueError):
        artifact.refuse(f"{name} must be the compressed lengths and text of {n} tokens")
    return smallest(lengths), text


def _hashes(text: NDArray[np.uint8], offsets: Ids) -> NDArray[np.uint64]:
    """(n,) a hash of each token, computed from eight bytes at a time."""
    padded = np.concatenate([text, np.zeros(_WORD, np.uint8)])
    # the word of eight bytes that begins at each byte
    words = np.ndarray((len(text) + 1,), "<u8", padded, strides=(1,))
    lengths = np.diff(offsets)
    hashes = lengths.astype(np.uint64) * _FACTOR
    active = np.arange(len(lengths))
    step = 0
    while True:
        left = lengths[active] - step
        if not (left > 0).all():
            active, left = active[left > 0], left[left > 0]
        if not len(active):
            return hashes
        word = words[offsets[active] + step] & _MASKS[left.clip(max=_WORD)]
        mixed = (hashes[active] ^ word) * _FACTOR
        hashes[active] = mixed ^ (mixed >> np.uint64(29))
        step += _WORD
