"""Tokens of users, items and features in few bytes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recbole_dsl.checkpoint.forms import is_count, kind, list_of, named, record, vector

# integers of more digits stay text
_MOST_DIGITS = 18
# tokens that are packed at once
_BLOCK = 2**16
_TYPES = torch.uint8, torch.int16, torch.int32, torch.int64
_INTEGERS = vector(*_TYPES)


def pack_tokens(tokens: Sequence[str] | NDArray) -> dict[str, Tensor]:
    """{"numbers": (n,) integers} if ``tokens`` are such, or {"text": (bytes,) uint8 of UTF-8, "lengths": (n,)}."""
    blocks = [slice(start, start + _BLOCK) for start in range(0, len(tokens), _BLOCK)]
    numbers, text, lengths = [], [], []
    for block in blocks:
        some = _numbers_of(_strings(tokens[block]))
        if some is None:
            break
        numbers.append(some)
    if blocks and len(numbers) == len(blocks):
        return {"numbers": smallest(torch.from_numpy(np.concatenate(numbers)))}
    for block in blocks:
        encoded = [token.encode(errors="surrogatepass") for token in _strings(tokens[block])]
        text.append(b"".join(encoded))
        lengths.append(np.fromiter(map(len, encoded), np.int64, len(encoded)))
    return {
        "text": torch.from_numpy(np.frombuffer(b"".join(text), np.uint8).copy()),
        "lengths": smallest(torch.from_numpy(np.concatenate([np.zeros(0, np.int64), *lengths]))),
    }


def _strings(tokens: Sequence[str] | NDArray) -> list[str]:
    return list(map(str, tokens.tolist() if isinstance(tokens, np.ndarray) else tokens))


def _numbers_of(tokens: list[str]) -> NDArray[np.int64] | None:
    """The integers that ``tokens`` are, if all are."""
    joined = "".join(tokens)
    if (
        joined.isascii()
        and joined.isdigit()
        and max(map(len, tokens)) <= _MOST_DIGITS
        # without leading zeros, which an integer does not keep
        and all(token and (token[0] != "0" or token == "0") for token in tokens)
    ):
        return np.fromiter(map(int, tokens), np.int64, len(tokens))
    return None


def unpack_tokens(packed: Mapping[str, Tensor]) -> list[str]:
    """The tokens that `pack_tokens` was given."""
    if "numbers" in packed:
        return list(map(str, packed["numbers"].tolist()))
    text = packed["text"].numpy(force=True).tobytes()
    ends = packed["lengths"].long().cumsum(0).tolist()
    return [text[a:b].decode(errors="surrogatepass") for a, b in zip([0, *ends], ends)]


def are_packed_tokens(value: Any) -> bool:
    """Whether ``value`` is what `pack_tokens` returns."""
    if record(numbers=_INTEGERS)(value):
        return bool((value["numbers"] >= 0).all())
    if not record(text=vector(torch.uint8), lengths=_INTEGERS)(value) or (value["lengths"] < 0).any():
        return False
    try:
        return value["lengths"].double().sum() == len(value["text"]) and unpack_tokens(value) is not None
    except UnicodeDecodeError:
        return False


def are_rows(value: Any) -> bool:
    """Whether ``value`` is what `recbole_dsl.data.rows.rows_of` returns, or empty."""
    form = record(order=list_of(kind(str)), fields=named(is_count), tokens=list_of(are_packed_tokens))
    return value == {} or (form(value) and max(value["fields"].values(), default=-1) < len(value["tokens"]))


def is_same_packed(some: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> bool:
    """Whether both are of the same tokens."""
    return some.keys() == others.keys() and all(
        some[name].shape == others[name].shape and torch.equal(some[name].cpu().long(), others[name].long())
        for name in some
    )


def smallest(numbers: Tensor) -> Tensor:
    """``numbers``, integers of which none is negative, in the smallest type of PyTorch's that it computes with."""
    largest = int(numbers.max()) if len(numbers) else 0
    return numbers.to(next(kind for kind in _TYPES if largest <= torch.iinfo(kind).max))
