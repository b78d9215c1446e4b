"""Whether the bytes of a file still have a token in them."""

import json
from collections.abc import Collection, Iterable

import numpy as np
from numpy.typing import NDArray

# bytes of a token from which on it is in no file by chance
LEAST = 8
_BLOCK = 2**22


def traces(content: bytes, gone: Iterable[str], kept: Collection[str]) -> list[str]:
    """Those of ``gone`` that are in ``content`` more often than in the tokens that stay, ``kept``.

    They are sought as UTF-8 and as JSON writes them. Tokens of fewer than eight bytes are passed over: these
    are in any large file by chance.
    """
    wanted: dict[bytes, str] = {}
    for token in gone:
        for form in (token, json.dumps(token)[1:-1]):
            encoded = form.encode(errors="surrogatepass")
            if len(encoded) >= LEAST:
                wanted[encoded] = token
    found = _counts(content, wanted)
    if not found:
        return []
    others = _counts("".join(kept).encode(errors="surrogatepass"), found)
    return sorted({wanted[one] for one, n in found.items() if n > others.get(one, 0)})


def _counts(content: bytes, wanted: Iterable[bytes]) -> dict[bytes, int]:
    """How often each of ``wanted`` is in ``content``; those that are not are left out."""
    by_begin: dict[int, list[bytes]] = {}
    for one in wanted:
        by_begin.setdefault(int.from_bytes(one[:LEAST], "little"), []).append(one)
    counts: dict[bytes, int] = {}
    begins = np.array(sorted(by_begin), np.uint64)
    for place, word in _places(content, begins):
        for one in by_begin[word]:
            if content[place : place + len(one)] == one:
                counts[one] = counts.get(one, 0) + 1
    return counts


def _places(content: bytes, begins: NDArray[np.uint64]) -> Iterable[tuple[int, int]]:
    """Where the eight bytes of any of ``begins``, ascending, are in ``content``, and which."""
    if len(content) < LEAST or not len(begins):
        return
    # the word of eight bytes that begins at each byte
    words = np.ndarray((len(content) - LEAST + 1,), "<u8", content, strides=(1,))
    for start in range(0, len(words), _BLOCK):
        block = words[start : start + _BLOCK].astype(np.uint64)
        nearest = begins[np.searchsorted(begins, block).clip(max=len(begins) - 1)]
        for place in np.flatnonzero(nearest == block).tolist():
            yield start + place, int(block[place])
