"""Errors in one line, for options, models and files that cannot be used."""

import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import Any

from recbole_dsl.patching import changes

# the environment variable with which the command shows where an error comes from
TRACEBACK = "RECBOLE_DSL_TRACEBACK"
_SHOWN = 120


class DSLError(ValueError):
    """A one-line message that names the option, its value and what is allowed."""


class Terminated(KeyboardInterrupt):
    """SIGTERM: the process ends as after Ctrl-C."""


def refusal(name: str, value: Any, allowed: str) -> DSLError:
    """The error for an option whose ``value`` is not ``allowed``, which continues "must be ..."."""
    if isinstance(value, str) and is_number(value):
        return DSLError(f"{name}={value!r}: must be {allowed}; here it is a string, so leave out the quotes")
    return DSLError(f"{name}={shown(value)}: must be {allowed}")


def shown(value: Any) -> str:
    """``value`` in one short line."""
    try:
        text = one_line(str(value)) or repr(value)
    except ValueError:
        # Python refuses to write integers of thousands of digits
        text = f"{type(value).__name__} of {sys.getsizeof(value):,} bytes"
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def first_of(names: Sequence[str], most: int = 5) -> str:
    """The first of ``names``, separated by commas, and how many more there are."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(map(shown, names[:most])) + more


@changes(
    "warnings.filters", "some warnings of others' code come while it is imported, and bury an error", "the end"
)
def quieten(modules: str = r"(?!recbole_dsl\b)") -> None:
    """Hide warnings of other packages, about which the user can do nothing and which bury an error of one line.

    Args:
        modules: a regular expression that their names begin with.
    """
    for category in (DeprecationWarning, FutureWarning, UserWarning, RuntimeWarning):
        warnings.filterwarnings("ignore", category=category, module=modules)


def described(error: BaseException, with_hint: bool = False) -> str:
    """The class of ``error`` and what it says, in one line; of a DSLError only what it says.

    Args:
        with_hint: whether to add how to see where it comes from.
    """
    text = one_line(str(error))
    if isinstance(error, DSLError):
        return text
    if not text:
        # the line of an assertion without a message says what it wants
        frames = traceback.extract_tb(error.__traceback__)
        text = frames[-1].line or "" if frames else ""
    hint = f" ({TRACEBACK}=1 shows where)" if with_hint else ""
    return shown(f"{type(error).__name__}: {text}") + hint


def one_line(text: str) -> str:
    """``text`` without the line breaks and indentation in it."""
    return " ".join(text.split())


def is_number(text: str) -> bool:
    """Whether ``text`` is one, as Python writes it."""
    try:
        float(text)
    except ValueError:
        return False
    return True
