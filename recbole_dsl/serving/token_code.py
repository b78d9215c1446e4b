"""Short tokens, such as ids, as numbers: a number for each text that has these characters at these places."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from recbole_dsl.serving.bits import WIDEST
from recbole_dsl.serving.csr import offsets_of

# places beyond which a text is no short one
MOST_PLACES = 64
_ASCII = 128


@dataclass(frozen=True)
class Part:
    """Consecutive places of the texts, whose characters become one number.

    All texts that these characters can make are numbered, from 0 for the empty one: shorter ones first, and those
    of one length in order. With the digits, the first of which is not 0, each text is the number that it says.

    Attributes:
        first: the place of the first character.
        alphabets: for each place, the characters that may be there.
    """

    first: int
    alphabets: tuple[bytes, ...]

    @cached_property
    def starts(self) -> list[int]:
        """(places + 2,) the number of the first text of each length, and how many texts there are."""
        starts, n_texts = [0], 1
        for alphabet in self.alphabets:
            starts.append(starts[-1] + n_texts)
            n_texts *= len(alphabet)
        return [*starts, starts[-1] + n_texts]

    @cached_property
    def digits(self) -> list[dict[int, int]]:
        """For each place, the digit that stands for a character."""
        return [{character: digit for digit, character in enumerate(a)} for a in self.alphabets]

    def number(self, text: bytes) -> int | None:
        """The number of ``text``; None if it has none."""
        number = 0
        for character, alphabet, digits in zip(text, self.alphabets, self.digits):
            if character not in digits:
                return None
            number = number * len(alphabet) + digits[character]
        return number + self.starts[len(text)]

    def text(self, number: int) -> bytes:
        """The text of a ``number``."""
        length = bisect_right(self.starts, number) - 1
        number -= self.starts[length]
        characters = []
        for size, alphabet in self._from_the_last[len(self.alphabets) - length :]:
            number, digit = divmod(number, size)
            characters.append(alphabet[digit])
        characters.reverse()
        return bytes(characters)

    @cached_property
    def _from_the_last(self) -> list[tuple[int, bytes]]:
        return [(len(alphabet), alphabet) for alphabet in reversed(self.alphabets)]


class TokenCode:
    """The numbers of texts that have, at each place, a character of the place's alphabet.

    Args:
        alphabets: at most `MOST_PLACES`, each of distinct ASCII characters but NUL, ascending.
    """

    def __init__(self, alphabets: Sequence[bytes]):
        self.alphabets = tuple(alphabets)
        self.parts: list[Part] = []
        start = 0
        for stop in range(1, len(alphabets) + 1):
            if stop == len(alphabets) or Part(start, self.alphabets[start : stop + 1]).starts[-1] > 2**WIDEST:
                self.parts.append(Part(start, self.alphabets[start:stop]))
                start = stop

    @classmethod
    def of(cls, text: NDArray[np.uint8], lengths: NDArray) -> "TokenCode | None":
        """The code of the texts of ``lengths`` (n,) in ``text``; None if they are too long or not ASCII."""
        longest = int(lengths.max(initial=0))
        if not 0 < longest <= MOST_PLACES or text.max(initial=1) >= _ASCII or not text.all():
            return None
        offsets = offsets_of(lengths)
        alphabets = []
        for place in range(longest):
            there = text[offsets[:-1][lengths > place] + place]
            alphabets.append(np.flatnonzero(np.bincount(there, minlength=_ASCII)).astype(np.uint8).tobytes())
        return cls(alphabets)

    def of_texts(self, text: NDArray[np.uint8], lengths: NDArray) -> NDArray[np.uint64]:
        """(parts, n) the numbers of texts that have some."""
        offsets, lengths = offsets_of(lengths), lengths.astype(np.int64)
        numbers = np.empty((len(self.parts), len(lengths)), np.uint64)
        for row, part in zip(numbers, self.parts):
            in_part = (lengths - part.first).clip(0, len(part.alphabets))
            row[:] = 0
            for place, alphabet in enumerate(part.alphabets):
                there = np.flatnonzero(in_part > place)
                digits = np.zeros(_ASCII, np.uint64)
                digits[np.frombuffer(alphabet, np.uint8)] = np.arange(len(alphabet))
                row[there] *= np.uint64(len(alphabet))
                row[there] += digits[text[offsets[there] + part.first + place]]
            row += np.array(part.starts, np.uint64)[in_part]
        return numbers

    def of_text(self, text: bytes) -> list[int] | None:
        """(parts,) the numbers of one text; None if it has none."""
        if len(text) > len(self.alphabets):
            return None
        numbers = [part.number(text[part.first : part.first + len(part.alphabets)]) for part in self.parts]
        return None if None in numbers else numbers  # type: ignore[return-value]

    def text(self, numbers: Sequence[int]) -> bytes:
        """The text of ``numbers`` (parts,)."""
        return b"".join([part.text(number) for part, number in zip(self.parts, numbers)])

    def texts(self, numbers: NDArray[np.uint64]) -> list[bytes]:
        """The texts of ``numbers`` (parts, n)."""
        out = np.zeros((numbers.shape[1], len(self.alphabets)), np.uint8)
        for row, part in zip(numbers, self.parts):
            starts = np.array(part.starts, np.uint64)
            lengths = np.searchsorted(starts, row, side="right") - 1
            left = row - starts[lengths]
            for place in range(len(part.alphabets) - 1, -1, -1):
                there = np.flatnonzero(lengths > place)
                alphabet = np.frombuffer(part.alphabets[place], np.uint8)
                left[there], digits = np.divmod(left[there], np.uint64(len(alphabet)))
                out[there, part.first + place] = alphabet[digits.astype(np.int64)]
        return out.view(f"S{len(self.alphabets)}").reshape(-1).tolist()

    def are_texts(self, numbers: NDArray[np.uint64]) -> bool:
        """Whether each column of ``numbers`` (parts, n) is that of a text."""
        for row, part in zip(numbers, self.parts):
            if (row >= np.uint64(part.starts[-1])).any():
                return False
        # a text goes on in the next part only where it fills this one
        return not any(
            ((later > 0) & (row < np.uint64(part.starts[-2]))).any()
            for row, later, part in zip(numbers, numbers[1:], self.parts)
        )
