"""The tokens of users or items in one array of bytes, and the ids of tokens."""

from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recbole_dsl.errors import DSLError, shown
from recbole_dsl.serving.artifact import Artifact
from recbole_dsl.serving.csr import Ids, offsets_of

LONGEST = 2**16 - 1
_WORD = 8
# odd, with bits that follow no pattern
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
# the bytes of a word that belong to a token with so many bytes left
_MASKS = np.array([(1 << (8 * n)) - 1 for n in range(_WORD + 1)], np.uint64)


class Tokens:
    """The token of each id; all are distinct.

    Args:
        text: (total,) uint8, the tokens in UTF-8, one after the other.
        lengths: (n,) unsigned, the bytes of each.
    """

    def __init__(self, text: NDArray[np.uint8], lengths: NDArray[np.unsignedinteger]):
        self.text, self.lengths = text, lengths
        self.offsets = offsets_of(lengths)
        self._hashes = _hashes(text, self.offsets)
        self._order = np.argsort(self._hashes, kind="stable").astype(np.uint32)
        self._hashes = self._hashes[self._order]

    @classmethod
    def of(cls, tokens: Sequence[str], what: str) -> "Tokens":
        """``tokens`` to be stored; ``what`` names them in the error.

        Raises:
            DSLError: if one is too long, or not a text.
        """
        encoded = []
        for token in tokens:
            try:
                encoded.append(str(token).encode())
            except UnicodeEncodeError as error:
                raise DSLError(f"{what}={shown(ascii(str(token)))}: must be text of whole characters") from error
        lengths = np.array([len(token) for token in encoded], np.int64)
        if len(lengths) and lengths.max() > LONGEST:
            longest = tokens[int(lengths.argmax())]
            raise DSLError(f"{what}={shown(longest)}: must have at most {LONGEST} bytes")
        small = np.uint8 if not len(lengths) or lengths.max() < 2**8 else np.uint16
        return cls(np.frombuffer(b"".join(encoded), np.uint8), lengths.astype(small))

    @classmethod
    def read(cls, artifact: Artifact, side: str, n: int) -> "Tokens":
        """The tokens of the ``n`` "users" or "items" (``side``) of ``artifact``.

        Raises:
            DSLError: if they are not texts, or not distinct.
        """
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
        tokens = cls(text, lengths)
        if tokens._repeated():
            artifact.refuse(f"{side} must have tokens that are all distinct")
        return tokens

    def arrays(self, side: str) -> dict[str, NDArray]:
        """The arrays that `read` reads, by name."""
        return {f"{side}.text": self.text, f"{side}.lengths": self.lengths}

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> str:
        return self.text[self.offsets[index] : self.offsets[index + 1]].tobytes().decode()

    @cached_property
    def all(self) -> NDArray[np.object_]:
        """(n,) every token."""
        text, ends = self.text.tobytes(), self.offsets.tolist()
        return np.array([text[a:b].decode() for a, b in pairwise(ends)], object)

    def of_ids(self, ids: Ids) -> NDArray[np.object_]:
        """The tokens of ``ids``, in an array of the same shape; None for -1."""
        if ids.size >= len(self) or "all" in vars(self):
            found = self.all[ids.clip(0)]
        else:
            distinct, places = np.unique(ids.clip(0), return_inverse=True)
            few = np.array([self[index] for index in distinct.tolist()], object)
            found = few[places.reshape(ids.shape)] if ids.size else np.empty(ids.shape, object)
        found[ids < 0] = None
        return found

    def ids(self, tokens: Sequence[str]) -> Ids:
        """(n,) the id of each of ``tokens``; -1 for unknown ones."""
        # text that is no UTF-8 becomes bytes that no token has
        encoded = [token.encode(errors="surrogatepass") for token in tokens]
        text = np.frombuffer(b"".join(encoded), np.uint8)
        hashes = _hashes(text, offsets_of(np.array([len(token) for token in encoded], np.int64)))
        first = np.searchsorted(self._hashes, hashes)
        last = np.searchsorted(self._hashes, hashes, side="right")
        found = np.full(len(encoded), -1, np.int64)
        for place in np.flatnonzero(first < last).tolist():
            for candidate in self._order[first[place] : last[place]].tolist():
                start, end = self.offsets[candidate], self.offsets[candidate + 1]
                if end - start == len(encoded[place]) and self.text[start:end].tobytes() == encoded[place]:
                    found[place] = candidate
                    break
        return found

    def _repeated(self) -> bool:
        """Whether two tokens are equal."""
        same = np.flatnonzero(self._hashes[1:] == self._hashes[:-1])
        alike = {int(index) for place in same.tolist() for index in self._order[place : place + 2]}
        return len({self.text[self.offsets[i] : self.offsets[i + 1]].tobytes() for i in alike}) < len(alike)


def is_token(value: Any) -> bool:
    """Whether ``value`` can be a token: a text, or a number, as tokens often are."""
    return isinstance(value, (str, int, np.integer)) and not isinstance(value, bool)


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
