"""What a file may make a model take: no weight larger than those that the file holds."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from recbole.config import Config
from torch import Tensor
from torch.overrides import TorchFunctionMode

# what is taken whatever the file holds: weights that are in no state dict, and fields that no weight is of
_SMALL, _FEW = 2**22, 2**16
_LONGEST = 2**16


@contextmanager
def no_larger_weights(state: Mapping[str, Tensor], shapes: Mapping[str, Sequence[int]]) -> Iterator[None]:
    """Within it, a module that makes a weight larger than all in ``state`` raises a ValueError before it does.

    Args:
        shapes: of the dense weights that sparse ones in ``state`` stand for.
    """
    sizes = [tensor.numel() for tensor in state.values()] + [math.prod(shape) for shape in shapes.values()]
    with _Refusing(max(_SMALL, *sizes)):
        yield


def check_counts(
    counts: Mapping[str, int],
    n_users: int,
    n_items: int,
    state: Mapping[str, Tensor],
    shapes: Mapping[str, Sequence[int]],
    config: Config,
) -> None:
    """Refuse more tokens of a field than any weight in ``state`` has rows or columns for, and endless sequences.

    Args:
        counts: field -> how many tokens it is said to have.
        n_users: with the padding; so with ``n_items``.

    Raises:
        ValueError: naming the field or the option.
    """
    every = [tuple(tensor.shape) for tensor in state.values()] + [tuple(shape) for shape in shapes.values()]
    # S3Rec has a row less than there are tokens
    most = max([_FEW, *(n + 2 for shape in every for n in shape)])
    known = {config["USER_ID_FIELD"]: n_users, config["ITEM_ID_FIELD"]: n_items}
    for field, count in counts.items():
        if field in known and count != known[field]:
            raise ValueError(f"{field} has {count} tokens, must have {known[field]}")
        if field not in known and not 0 <= count <= most:
            raise ValueError(f"{field} has {count} tokens, which is more than the weights are of")
    longest = config["MAX_ITEM_LIST_LENGTH"]
    if longest is not None and longest > _LONGEST:
        raise ValueError(f"MAX_ITEM_LIST_LENGTH={longest} must be at most {_LONGEST}")


class _Refusing(TorchFunctionMode):
    """Modules make their weights by ``torch.empty``."""

    def __init__(self, most: int):
        super().__init__()
        self._most = most

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.empty and args:
            shape = args[0] if isinstance(args[0], (tuple, list)) else args
            size = math.prod(n for n in shape if isinstance(n, int))
            if size > self._most:
                raise ValueError(f"a weight of {tuple(shape)} is larger than all in the file")
        return func(*args, **(kwargs or {}))
