"""The tokens of users or items, and the ids of tokens."""

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recbole_dsl.errors import DSLError, refusal, shown
from recbole_dsl.serving.artifact import Artifact
from recbole_dsl.serving.bits import bits_for
from recbole_dsl.serving.csr import Ids
from recbole_dsl.serving.stored_tokens import LONGEST, NumberedTokens, StoredTokens, TextTokens, stored_arrays

# tokens from which on they are decoded at once
_MANY = 64


class Tokens:
    """The token of each id; all are distinct.

    Args:
        text: (total,) uint8, the tokens in UTF-8, one after the other.
        lengths: (n,) unsigned, the bytes of each.
    """

    def __init__(self, text: NDArray[np.uint8], lengths: NDArray[np.unsignedinteger]):
        self._keep(TextTokens(text, lengths))

    def _keep(self, stored: StoredTokens) -> None:
        self._stored: StoredTokens = stored
        # the lowest bits of a hash give way to the id
        self._id_bits = np.uint64((1 << bits_for(len(stored))) - 1)
        self._ordered = stored.hashes()
        self._ordered &= ~self._id_bits
        self._ordered |= np.arange(len(stored), dtype=np.uint64)
        self._ordered.sort()

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
        return cls(np.frombuffer(b"".join(encoded), np.uint8), lengths.astype(np.uint16))

    @classmethod
    def read(cls, artifact: Artifact, side: str, n: int) -> "Tokens":
        """The tokens of the ``n`` "users" or "items" (``side``) of ``artifact``.

        Raises:
            DSLError: if they are not texts, or not distinct.
        """
        kind = NumberedTokens if f"{side}.codes" in artifact.arrays else TextTokens
        tokens = cls.__new__(cls)
        tokens._keep(kind.read(artifact, side, n))
        if tokens._are_repeated():
            artifact.refuse(f"{side} must have tokens that are all distinct")
        return tokens

    def arrays(self, side: str) -> dict[str, NDArray]:
        """The arrays that `read` reads, by name, in the form that takes the fewest bytes."""
        return {f"{side}.{name}": array for name, array in stored_arrays(self._stored).items()}

    def __len__(self) -> int:
        return len(self._stored)

    def __getitem__(self, index: int) -> str:
        return self._stored.one(range(len(self))[index]).decode()

    @cached_property
    def all(self) -> NDArray[np.object_]:
        """(n,) every token."""
        return self._some(np.arange(len(self)))

    def of_ids(self, ids: Ids) -> NDArray[np.object_]:
        """The tokens of ``ids``, in an array of the same shape; None for -1."""
        if ids.size >= len(self) or "all" in vars(self):
            found = self.all[ids.clip(0)]
        else:
            distinct, places = np.unique(ids.clip(0), return_inverse=True)
            few = self._some(distinct)
            found = few[places.reshape(ids.shape)] if ids.size else np.empty(ids.shape, object)
        found[ids < 0] = None
        return found

    def ids(self, tokens: Sequence[str]) -> Ids:
        """(n,) the id of each of ``tokens``; -1 for unknown ones."""
        # text that is no UTF-8 becomes bytes that no token has
        encoded = [token.encode(errors="surrogatepass") for token in tokens]
        hashes = self._stored.hashes_of(encoded)
        first = np.searchsorted(self._ordered, hashes & ~self._id_bits)
        last = np.searchsorted(self._ordered, hashes | self._id_bits, side="right")
        found = np.full(len(encoded), -1, np.int64)
        for place in np.flatnonzero(first < last).tolist():
            for candidate in (self._ordered[first[place] : last[place]] & self._id_bits).tolist():
                if self._stored.one(candidate) == encoded[place]:
                    found[place] = candidate
                    break
        return found

    def _some(self, ids: Ids) -> NDArray[np.object_]:
        if len(ids) < _MANY:
            return np.array([self[index] for index in ids.tolist()], object)
        return np.array([token.decode() for token in self._stored.some(ids)], object)

    def _are_repeated(self) -> bool:
        """Whether two tokens are equal."""
        hashes = self._ordered | self._id_bits
        same = np.flatnonzero(hashes[1:] == hashes[:-1])
        alike = {*(self._ordered[np.concatenate([same, same + 1])] & self._id_bits).tolist()}
        return len({self._stored.one(index) for index in alike}) < len(alike)


def tokens_in(name: str, values: Any) -> list[str]:
    """The tokens that ``values`` are, given for ``name``.

    Raises:
        DSLError: if they are no collection of tokens.
    """
    if isinstance(values, (str, bytes, dict)) or not isinstance(values, Iterable):
        raise refusal(name, values, "tokens")
    values = list(values)
    for value in values:
        if not is_token(value):
            raise refusal(name, value, "tokens, which are texts")
    return [str(value) for value in values]


def is_token(value: Any) -> bool:
    """Whether ``value`` can be a token: a text, or a number, as tokens often are."""
    return isinstance(value, (str, int, np.integer)) and not isinstance(value, bool)
