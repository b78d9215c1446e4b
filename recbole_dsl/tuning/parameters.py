"""RecBole's parameter files, which say what a search varies. They are read as data; nothing is evaluated."""

import ast
import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from recbole_dsl.checkpoint.codec import plain
from recbole_dsl.errors import DSLError, one_line, refusal, shown
from recbole_dsl.files import or_shipped

# how many numbers follow each kind but choice
_NUMBERS = {"uniform": 2, "loguniform": 2, "quniform": 3}
KINDS = ("choice", *_NUMBERS)
# bytes; nobody writes a larger one
_LARGEST_FILE = 2**20


@dataclass(frozen=True)
class Parameter:
    """An option that a search varies.

    Attributes:
        name: of the option.
        kind: one of `KINDS`.
        values: the candidates of a "choice"; otherwise the lowest and the highest value (of "loguniform", their
            logarithms), and the step of "quniform".
    """

    name: str
    kind: str
    values: tuple[Any, ...]

    @property
    def is_choice(self) -> bool:
        return self.kind == "choice"

    def candidates(self) -> list[Any]:
        """Every value of a choice; the ends of an interval and a value between them."""
        if self.is_choice:
            return list(self.values)
        low, high = self.values[:2]
        places = (low, low + (high - low) * 0.6180339887, high)
        return [self.value(math.exp(place) if self.kind == "loguniform" else place) for place in places]

    def draw(self, random: np.random.Generator) -> Any:
        """A random value."""
        if self.is_choice:
            return self.values[int(random.integers(len(self.values)))]
        place = float(random.uniform(*self.values[:2]))
        return self.value(math.exp(place) if self.kind == "loguniform" else place)

    def value(self, number: float) -> int | float:
        """The value of the option for a ``number`` of an interval: an integer if its ends and step are."""
        if self.kind != "quniform":
            return float(number)
        step = self.values[2]
        number = round(number / step) * step
        return int(number) if all(float(value).is_integer() for value in self.values) else float(number)

    def to_dict(self) -> dict[str, Any]:
        """This as plain data."""
        return {"name": self.name, "kind": self.kind, "values": list(self.values)}


def read_parameters(path: str) -> list[Parameter]:
    """The parameters in a file of RecBole's form, one a line: ``name choice [...]``, ``name uniform low,high``,
    ``name loguniform low,high`` or ``name quniform low,high,step``; lines that begin with # are passed over.

    A value in quotes is read as RecBole reads an option: "[64, 32]" is a list, "None" is None, "adam" a string.

    Raises:
        DSLError: naming the file, the line and what is allowed.
    """
    parameters: dict[str, Parameter] = {}
    for number, line in enumerate(_lines(path), start=1):
        words = line.split(None, 2)
        if not words or words[0].startswith("#"):
            continue
        if len(words) < 3:
            _refuse(path, number, line, "name, kind and values, such as: learning_rate choice [0.01, 0.001]")
        name, kind, text = words
        if kind not in KINDS:
            _refuse(path, number, line, f"one of {', '.join(KINDS)} after the name")
        if name in parameters:
            _refuse(path, number, line, f"the only line of {name}")
        values = _choices(path, number, text) if kind == "choice" else _numbers(path, number, kind, text)
        parameters[name] = Parameter(name, kind, values)
    if not parameters:
        raise DSLError(f"params_file={path}: must have a line, such as: learning_rate choice [0.01, 0.001]")
    return list(parameters.values())


def plain_options(options: Mapping[str, Any], at: Callable[[str], str] = str) -> dict[str, Any]:
    """``options`` as plain data, with every path in them passed through ``at``.

    Raises:
        DSLError: naming an option that is no plain data.
    """
    found = {}
    for name, value in options.items():
        try:
            found[name] = plain(value)
        except TypeError as error:
            raise refusal(name, value, "plain data: numbers, strings, None, lists or dicts") from error
        if name.endswith("_path") and isinstance(value, str):
            found[name] = at(value)
    return found


def as_option(value: Any) -> Any:
    """``value`` as plain data; a string as RecBole's Config reads it, as long as it is a literal."""
    if isinstance(value, str):
        if value.lower() in ("true", "false"):
            return value.lower() == "true"
        try:
            return _plain(ast.literal_eval(value.strip()))
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            return value
    return _plain(value)


def _lines(path: str) -> list[str]:
    path = or_shipped(path)
    if not os.path.isfile(path):
        raise DSLError(f"params_file={path}: must be an existing file")
    try:
        with open(path, "rb") as file:
            content = file.read(_LARGEST_FILE + 1)
    except OSError as error:
        raise DSLError(f"params_file={path}: must be readable: {error.strerror}") from error
    if len(content) > _LARGEST_FILE:
        raise DSLError(f"params_file={path}: must have at most {_LARGEST_FILE:,} bytes")
    try:
        return content.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise DSLError(f"params_file={path}: must be text in UTF-8, and byte {error.start + 1} is not") from error


def _choices(path: str, number: int, text: str) -> tuple[Any, ...]:
    allowed = "a list of numbers, strings, True, False, None, lists or dicts, which is not empty"
    try:
        values = ast.literal_eval(text)
        if not isinstance(values, (list, tuple)) or not values:
            _refuse(path, number, text, allowed)
        read = [as_option(value) for value in values]
    except DSLError:
        raise
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError) as error:
        raise _refusal(path, number, text, allowed) from error
    # a value that is given twice is one trial
    return tuple({json.dumps(value): value for value in read}.values())


def _plain(value: Any) -> Any:
    if value is None or type(value) in (bool, int, float, str):
        if isinstance(value, float) and math.isnan(value):
            raise ValueError("not a number")
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: _plain(entry) for key, entry in value.items()}
    raise TypeError(f"{type(value).__name__} is not plain data")


def _numbers(path: str, number: int, kind: str, text: str) -> tuple[float, ...]:
    names = "low,high,step" if kind == "quniform" else "low,high"
    allowed = f"{names} with finite numbers, low < high"
    if kind == "quniform":
        allowed += " and step > 0"
    if kind == "loguniform":
        allowed += ", the natural logarithms of the ends"
    try:
        values = tuple(float(word) for word in text.split(","))
    except ValueError:
        values = ()
    if len(values) != _NUMBERS[kind] or not _is_range(kind, values):
        _refuse(path, number, text, allowed)
    return values


def _is_range(kind: str, values: tuple[float, ...]) -> bool:
    low, high, *step = values
    if not all(map(math.isfinite, values)) or not low < high or not math.isfinite(high - low):
        return False
    if kind == "quniform":
        return step[0] > 0 and max(abs(low), abs(high)) / step[0] < 2**53
    # the logarithm of the largest number, and of the smallest
    return kind != "loguniform" or (low > -700 and high < 700)


def _refusal(path: str, number: int, text: str, allowed: str) -> DSLError:
    return DSLError(f"params_file={path}, line {number}: {shown(one_line(text))}: must be {allowed}")


def _refuse(path: str, number: int, text: str, allowed: str) -> NoReturn:
    raise _refusal(path, number, text, allowed)
