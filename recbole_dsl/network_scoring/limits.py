"""Limits of what a file may make a model take: memory and work in proportion to what the file holds.

A header names numbers of layers, steps and columns, which are not believed until the weights prove them. So a
model is restored and tried under a budget of PyTorch calls and of the elements that these return. Numbers among
the options are checked when the model reads them, because of loops in Python and of NumPy's arrays.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from recbole.config import Config
from torch import Tensor
from torch.overrides import TorchFunctionMode

# allowed whatever the file holds: elements and calls, tokens of a field, items of a sequence
_ELEMENTS, _CALLS, _TOKENS, _LONGEST = 2**26, 20_000, 2**16, 2**12
# allowed for each element of the weights, each weight, and each user or item; no RecBole model takes half as many
_PER_ELEMENT, _CALLS_PER_WEIGHT, _CALLS_PER_ROW = 128, 500, 128
# elements for each byte of the feature tables, whose rows a graph model takes as edges with a vector each
_PER_TABLE_BYTE = 2**14
# cells of a sparse weight for each of its entries
_MOST_CELLS = 1000
# the largest number among a model's options: whatever the file holds, at most, and times the rows of a table
_ANY_NUMBER, _MOST_NUMBER, _MOST_ROWS = 2**9, 2**16, 2**22
# numbers that only a training reads
_OF_TRAINING = frozenset({"total_anneal_steps", "train_batch_size", "eval_batch_size", "epochs", "seed"})
# functions whose arguments say how large a tensor they make
_RANGES = frozenset("arange linspace logspace".split())
_REPEATERS = frozenset("repeat tile repeat_interleave".split())
_MAKERS = _RANGES.union(
    _REPEATERS,
    "empty zeros ones full rand randn randint randperm eye normal".split(),
    "new_empty new_zeros new_ones new_full".split(),
)


@dataclass(frozen=True)
class Limits:
    """The limits that follow from what a file holds of a network.

    Attributes:
        shapes: of its weights; of sparse ones those of the dense weights that they stand for.
        n_bytes: of all arrays.
        table_bytes: of the feature tables.
        n_users: with the padding, like ``n_items``.
        longest: the length of the longest sequence of a user; 0 without sequences.
    """

    shapes: Sequence[Sequence[int]]
    n_bytes: int
    table_bytes: int
    n_users: int
    n_items: int
    longest: int

    @property
    def widest(self) -> int:
        """The most rows or columns of a weight, and 2, as S3Rec has a row less than there are tokens."""
        return 2 + max((n for shape in self.shapes for n in shape), default=0)

    @property
    def most_elements(self) -> int:
        elements = sum(math.prod(shape) for shape in self.shapes)
        return _ELEMENTS + _PER_ELEMENT * (elements + self.n_bytes) + _PER_TABLE_BYTE * self.table_bytes

    @property
    def most_calls(self) -> int:
        rows = self.n_users + self.n_items
        return _CALLS + _CALLS_PER_WEIGHT * len(self.shapes) + _CALLS_PER_ROW * rows


def check_cells(shapes: Mapping[str, Sequence[int]], state: Mapping[str, Tensor]) -> None:
    """Refuse sparse weights whose ``shapes`` have far more cells than they have entries in ``state``.

    Raises:
        ValueError: naming one.
    """
    for name, shape in shapes.items():
        if math.prod(shape) > _MOST_CELLS * (state[f"{name}.values"].numel() + shape[0]):
            raise ValueError(f"{name} of the shape {list(shape)} has too few entries in the file")


def check_counts(counts: Mapping[str, int], limits: Limits, config: Config) -> None:
    """Refuse fields with more tokens than any weight has rows or columns, and too long sequences.

    Args:
        counts: field -> how many tokens the header says it has.

    Raises:
        ValueError: naming the field or the option.
    """
    known = {config["USER_ID_FIELD"]: limits.n_users, config["ITEM_ID_FIELD"]: limits.n_items}
    for field, count in counts.items():
        if field in known and count != known[field]:
            raise ValueError(f"{field} has {count} tokens, must have {known[field]}")
        if field not in known and not 0 <= count <= max(_TOKENS, limits.widest):
            raise ValueError(f"{field} has {count} tokens, which is more than the weights are of")
    length, longest = config["MAX_ITEM_LIST_LENGTH"], max(_LONGEST, limits.widest, limits.longest)
    if length is not None and not 1 <= length <= longest:
        raise ValueError(f"MAX_ITEM_LIST_LENGTH={length} must be from 1 to {longest}")


@contextmanager
def numbers_checked(config: Config, limits: Limits) -> Iterator[None]:
    """Makes reading an option of ``config`` that is too large for the file raise a ValueError."""
    rows = max(limits.n_users, limits.n_items, 1)
    most = max(_ANY_NUMBER, limits.widest, min(_MOST_NUMBER, _MOST_ROWS // rows))
    kind = type(config)

    def read(self: Config, name: str) -> Any:
        value = kind.__getitem__(self, name)
        if name not in _OF_TRAINING and (largest := _largest(value)) > most:
            raise ValueError(f"{name}={largest} must be at most {most}, as the weights are no larger")
        return value

    config.__class__ = type(kind.__name__, (kind,), {"__getitem__": read})
    try:
        yield
    finally:
        config.__class__ = kind


def _largest(value: Any) -> int:
    """The largest integer in ``value`` or its parts."""
    if isinstance(value, Mapping):
        value = [*value.values()]
    if isinstance(value, (list, tuple)):
        return max(map(_largest, value), default=0)
    return abs(value) if isinstance(value, int) else 0


class WorkBounded(TorchFunctionMode):
    """Makes PyTorch raise a ValueError before it does more than ``limits`` allow."""

    def __init__(self, limits: Limits):
        super().__init__()
        self._elements, self._calls = limits.most_elements, limits.most_calls

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self._calls -= 1
        if self._calls < 0:
            raise ValueError("it takes more steps than the weights in the file are for")
        # a tensor that is written to may be expanded and take no memory yet, like one that is to be made
        self._take(max((_size(value) for value in args if isinstance(value, Tensor)), default=0), 0)
        if (name := getattr(func, "__name__", "")) in _MAKERS:
            self._take(_told(name, args, kwargs), 0)
        found = func(*args, **kwargs)
        if isinstance(found, Tensor):
            self._take(_size(found), 1)
        return found

    def _take(self, size: int, times: int) -> None:
        if size > self._elements:
            raise ValueError("it takes tensors larger than the weights in the file are for")
        self._elements -= times * size


def _size(tensor: Tensor) -> int:
    return tensor.numel() if tensor.layout is torch.strided else tensor._nnz()


def _told(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> int:
    """How many elements the function ``name`` is told to make."""
    numbers = [value for value in args if isinstance(value, int)]
    if name in _RANGES:
        return max(numbers, default=0)
    shapes = [value for value in (kwargs.get("size"), *args) if isinstance(value, (list, tuple))]
    shape = [n for n in (shapes[0] if shapes else numbers) if isinstance(n, int)]
    if name == "eye" and len(shape) == 1:
        shape = 2 * shape
    copied = _size(args[0]) if name in _REPEATERS and isinstance(args[0], Tensor) else 1
    return copied * math.prod(shape)
