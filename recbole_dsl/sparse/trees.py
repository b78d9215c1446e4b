"""Arguments of PyTorch's functions: values in tuples, lists and dicts."""

from collections.abc import Callable, Iterator
from typing import Any


def leaves(tree: Any) -> Iterator[Any]:
    """The values in ``tree``, from left to right."""
    if isinstance(tree, (tuple, list)):
        for entry in tree:
            yield from leaves(entry)
    elif isinstance(tree, dict):
        yield from leaves(list(tree.values()))
    else:
        yield tree


def map_only(kind: type, function: Callable[[Any], Any], tree: Any) -> Any:
    """``tree`` with what ``function`` makes of each value of ``kind``."""
    if isinstance(tree, kind):
        return function(tree)
    if type(tree) in (tuple, list):
        return type(tree)(map_only(kind, function, entry) for entry in tree)
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*(map_only(kind, function, entry) for entry in tree))
    if isinstance(tree, dict):
        return {name: map_only(kind, function, entry) for name, entry in tree.items()}
    return tree
