"""Limits of the memory and work that a file may cost, in proportion to what it holds.

A header states numbers of layers, steps and columns, which are not trusted before the weights confirm them. So a
model is restored and tried under a budget of PyTorch calls, and of the elements that these return. The budget does
not see loops in Python and arrays of NumPy, so numbers among the options are checked when the model reads them.
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

# allowed for any file: elements, calls, tokens of a field, items of a sequence
_ELEMENTS, _CALLS, _TOKENS, _LONGEST = 2**26, 20_000, 2**16, 2**12
# more elements for each element of the weights, and more calls for each weight and for each user or item;
# RecBole's models need less than half of that
_PER_ELEMENT, _CALLS_PER_WEIGHT, _CALLS_PER_ROW = 128, 500, 128
# more elements for each byte of the feature tables: graph models make each row an edge with a vector
_PER_TABLE_BYTE = 2**14
# cells that a sparse weight may have for each of its entries
_MOST_CELLS = 1000
# the largest number among a model's options: for any file, for the largest file, and times the rows of a table
_ANY_NUMBER, _MOST_NUMBER, _MOST_ROWS = 2**9, 2**16, 2**22
# numbers that matter in training only
_OF_TRAINING = frozenset({"total_anneal_steps", "train_batch_size", "eval_batch_size", "epochs", "seed"})
# functions whose arguments determine the size of the result
_RANGES = frozenset("arange linspace logspace".split())
_REPEATERS = frozenset("repeat tile repeat_interleave".split())
_MAKERS = _RANGES.union(
    _REPEATERS,
    "empty zeros ones full rand randn randint randperm eye normal".split(),
    "new_empty new_zeros new_ones new_full".split(),
)


@dataclass(frozen=True)
class Limits:
    """The limits for a network, from what its file holds.

    Attributes:
        shapes: of the weights; a sparse one has the shape of the dense weight that it stands for.
        n_bytes: bytes of all arrays.
        table_bytes: bytes of the feature tables.
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
        """The largest dimension of a weight, plus 2, as S3Rec has a row less than there are tokens."""
        return 2 + max((n for shape in self.shapes for n in shape), default=0)

    @property
    def most_elements(self) -> int:
        """The most elements that PyTorch calls may return."""
        elements = sum(math.prod(shape) for shape in self.shapes)
        return _ELEMENTS + _PER_ELEMENT * (elements + self.n_bytes) + _PER_TABLE_BYTE * self.table_bytes

    @property
    def most_calls(self) -> int:
        """The most PyTorch calls."""
        rows = self.n_users + self.n_items
        return _CALLS + _CALLS_PER_WEIGHT * len(self.shapes) + _CALLS_PER_ROW * rows


def check_cells(shapes: Mapping[str, Sequence[int]], state: Mapping[str, Tensor]) -> None:
    """Refuse a sparse weight with far more cells, by ``shapes``, than entries in ``state``.

    Raises:
        ValueError: naming the weight.
    """
    for name, shape in shapes.items():
        if math.prod(shape) > _MOST_CELLS * (state[f"{name}.values"].numel() + shape[0]):
            raise ValueError(f"{name} has the shape {list(shape)}, and too few entries in the file")


def check_counts(counts: Mapping[str, int], limits: Limits, config: Config) -> None:
    """Refuse a field with more tokens than any weight has rows or columns, and sequences that are too long.

    Args:
        counts: field -> its number of tokens, as the header states it.

    Raises:
        ValueError: naming the field or the option.
    """
    known = {config["USER_ID_FIELD"]: limits.n_users, config["ITEM_ID_FIELD"]: limits.n_items}
    for field, count in counts.items():
        if field in known and count != known[field]:
            raise ValueError(f"{field} has {count} tokens, must have {known[field]}")
        if field not in known and not 0 <= count <= max(_TOKENS, limits.widest):
            raise ValueError(f"{field} has {count} tokens, more than any weight has rows")
    length, longest = config["MAX_ITEM_LIST_LENGTH"], max(_LONGEST, limits.widest, limits.longest)
    if length is not None and not 1 <= length <= longest:
        raise ValueError(f"MAX_ITEM_LIST_LENGTH={length} must be from 1 to {longest}")


@contextmanager
def numbers_checked(config: Config, limits: Limits) -> Iterator[None]:
    """Within it, reading an option of ``config`` whose number is too large for the file raises a ValueError."""
    rows = max(limits.n_users, limits.n_items, 1)
    most = max(_ANY_NUMBER, limits.widest, min(_MOST_NUMBER, _MOST_ROWS // rows))
    kind = type(config)

    def read(self: Config, name: str) -> Any:
        value = kind.__getitem__(self, name)
        if name not in _OF_TRAINING and (largest := _largest(value)) > most:
            raise ValueError(f"{name}={largest} must be at most {most} with weights of this size")
        return value

    config.__class__ = type(kind.__name__, (kind,), {"__getitem__": read})
    try:
        yield
    finally:
        config.__class__ = kind


def _largest(value: Any) -> int:
    """The largest magnitude of an integer in ``value`` or its parts; 0 if there is none."""
    if isinstance(value, Mapping):
        value = [*value.values()]
    if isinstance(value, (list, tuple)):
        return max(map(_largest, value), default=0)
    return abs(value) if isinstance(value, int) else 0


class WorkBounded(TorchFunctionMode):
    """Within it, PyTorch raises a ValueError before it exceeds the elements or the calls of ``limits``."""

    def __init__(self, limits: Limits):
        super().__init__()
        self._elements, self._calls = limits.most_elements, limits.most_calls

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self._calls -= 1
        if self._calls < 0:
            raise ValueError("it needs more PyTorch calls than weights of this size may")
        # an expanded argument takes memory only when it is written to
        self._take(max((_size(value) for value in args if isinstance(value, Tensor)), default=0), 0)
        if (name := getattr(func, "__name__", "")) in _MAKERS:
            self._take(_told(name, args, kwargs), 0)
        found = func(*args, **kwargs)
        if isinstance(found, Tensor):
            self._take(_size(found), 1)
        return found

    def _take(self, size: int, times: int) -> None:
        if size > self._elements:
            raise ValueError("it needs larger tensors than weights of this size may")
        self._elements -= times * size


def _size(tensor: Tensor) -> int:
    return tensor.numel() if tensor.layout is torch.strided else tensor._nnz()


def _told(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> int:
    """How many elements the arguments of the function ``name`` ask for."""
    numbers = [value for value in args if isinstance(value, int)]
    if name in _RANGES:
        return max(numbers, default=0)
    shapes = [value for value in (kwargs.get("size"), *args) if isinstance(value, (list, tuple))]
    shape = [n for n in (shapes[0] if shapes else numbers) if isinstance(n, int)]
    if name == "eye" and len(shape) == 1:
        shape = 2 * shape
    copied = _size(args[0]) if name in _REPEATERS and isinstance(args[0], Tensor) else 1
    return copied * math.prod(shape)
