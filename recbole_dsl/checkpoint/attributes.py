"""What training changes beside weights: counters, histories and the like, which are attributes of a model."""

import hashlib
import pickle
import weakref
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from recbole_dsl.checkpoint.codec import decode, encode

# what every module has, and what training does not change
_OF_MODULES = frozenset(vars(nn.Module())) | {"device", "logger"}
# longer lists and dictionaries are not compared, which is done after each epoch
_MOST_ENTRIES = 10_000


class AttributeWatch:
    """Sees which plain attributes of some objects have changed since it was made.

    An attribute is plain if it is a number, text, a tensor that is neither parameter nor buffer, a NumPy array, or
    a list or dictionary of these.

    Args:
        owners: the objects by name.
        ignored: names of attributes that are left out.
    """

    def __init__(self, owners: Mapping[str, Any], ignored: Iterable[str] = ()):
        self._owners = dict(owners)
        self._ignored = _OF_MODULES | set(ignored)
        self._before = {name: self._marks(owner) for name, owner in self._owners.items()}

    def changed(self) -> dict[str, dict[str, Any]]:
        """owner -> attribute -> its value as `encode` gives it, of the attributes that have changed."""
        found = {}
        for name, owner in self._owners.items():
            before = self._before[name]
            # what training adds, it adds again when it is missing
            values = {
                key: encode(vars(owner)[key])
                for key, mark in self._marks(owner).items()
                if key in before and not _is_same(before[key], mark)
            }
            if values:
                found[name] = values
        return found

    def problem(self, saved: Mapping[str, Mapping[str, Any]]) -> str | None:
        """Why ``saved`` cannot be what `changed` returned for such objects, or None."""
        for name, values in saved.items():
            if name not in self._owners:
                return f"attributes are of {name!r:.80}, which there is not"
            own = vars(self._owners[name])
            for key, value in values.items():
                if not isinstance(key, str) or key in self._ignored or key not in own:
                    return f"attribute {key!r:.80} of {name or 'the model'} is not one that it has"
                try:
                    decoded = decode(value)
                except (AttributeError, KeyError, OverflowError, RuntimeError, TypeError, ValueError):
                    return f"attribute {key} is damaged"
                if not _is_like(decoded, own[key]):
                    return f"attribute {key} is {type(decoded).__name__}, must be like {type(own[key]).__name__}"
        return None

    def restore(self, saved: Mapping[str, Mapping[str, Any]]) -> None:
        """Set the attributes to what `changed` returned; ``saved`` must have passed `problem`."""
        for name, values in saved.items():
            for key, value in values.items():
                setattr(self._owners[name], key, decode(value))

    def _marks(self, owner: Any) -> dict[str, Any]:
        marks = {key: _mark(value) for key, value in vars(owner).items() if key not in self._ignored}
        return {key: mark for key, mark in marks.items() if mark is not None}


def _mark(value: Any) -> Any:
    """What differs once ``value`` has changed; None for what is not plain."""
    if isinstance(value, Tensor):
        usual = type(value) is Tensor and value.layout is torch.strided and not value.requires_grad
        return (weakref.ref(value), value._version) if usual else None
    if value is None or isinstance(value, (bool, int, float, str, np.generic)):
        return "value", type(value), value
    if isinstance(value, np.ndarray):
        return None if value.dtype.hasobject else ("array", hashlib.sha256(np.ascontiguousarray(value)).digest())
    if isinstance(value, (list, dict)) and len(value) <= _MOST_ENTRIES:
        try:
            return "entries", hashlib.sha256(pickle.dumps(encode(value))).digest()
        except (TypeError, RecursionError):
            return None
    return None


def _is_same(before: Any, now: Any) -> bool:
    if isinstance(before[0], weakref.ref) and isinstance(now[0], weakref.ref):
        return before[0]() is now[0]() and before[1] == now[1]
    return before == now


def _is_like(value: Any, own: Any) -> bool:
    if own is None or value is None:
        return True
    if isinstance(own, Tensor):
        return isinstance(value, Tensor) and (value.shape, value.dtype) == (own.shape, own.dtype)
    numbers = int, float, np.generic
    if isinstance(own, numbers) and not isinstance(own, bool):
        return isinstance(value, numbers) and not isinstance(value, bool)
    return type(value) is type(own)
