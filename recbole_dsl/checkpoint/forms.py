"""What values a checkpoint may hold, as predicates: a file's content is not believed before it passes them."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Form = Callable[[Any], bool]


def is_int(value: Any) -> bool:
    """Whether ``value`` is an integer and no truth value."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Whether ``value`` is a number, infinite perhaps, but not NaN."""
    return (is_int(value) or isinstance(value, float)) and not math.isnan(value)


def is_count(value: Any) -> bool:
    """Whether ``value`` is an integer from 0 to 2**62."""
    return is_int(value) and 0 <= value < 2**62


def is_share(value: Any) -> bool:
    """Whether ``value`` is a number from 0 to 1."""
    return is_number(value) and 0 <= value <= 1


def is_text(value: Any) -> bool:
    """Whether ``value`` is a short line of text."""
    return isinstance(value, str) and 0 < len(value) < 200 and value.isprintable()


def kind(*types: type) -> Form:
    """Any value of ``types``."""
    return lambda value: isinstance(value, types)


def optional(form: Form) -> Form:
    """None, or what ``form`` takes."""
    return lambda value: value is None or form(value)


def list_of(form: Form) -> Form:
    """A list of what ``form`` takes."""
    return lambda value: isinstance(value, list) and all(map(form, value))


def named(form: Form) -> Form:
    """A dictionary of what ``form`` takes, with text as keys."""
    return lambda value: isinstance(value, dict) and all(isinstance(k, str) and form(v) for k, v in value.items())


def record(**forms: Form) -> Form:
    """A dictionary with exactly the keys of ``forms``, each with a value that its form takes."""
    return lambda value: (
        isinstance(value, dict) and value.keys() == forms.keys() and all(f(value[k]) for k, f in forms.items())
    )


def vector(*dtypes: torch.dtype) -> Form:
    """A one-dimensional tensor of one of ``dtypes``."""
    return lambda value: isinstance(value, Tensor) and value.dim() == 1 and value.dtype in dtypes
