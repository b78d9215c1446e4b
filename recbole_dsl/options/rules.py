"""Rules for the values of options: what each takes, and the words that say so."""

import codecs
import math
import re
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from recbole_dsl.errors import refusal

# no run can use a larger size, and PyTorch and NumPy fail on larger ones in many ways
_LARGEST = 2**31 - 1


@dataclass(frozen=True)
class Rule:
    """What an option may be.

    Attributes:
        allowed: words that go on from "must be".
        accepts: whether a value is allowed. A TypeError, ValueError, LookupError or OverflowError, as a value of
            another type raises, means no; any other error is a bug in the rule.
        most: the largest integer, where ``allowed`` does not say it.
    """

    allowed: str
    accepts: Callable[[Any], bool]
    most: int | None = None

    def takes(self, value: Any) -> bool:
        """Whether ``value`` is allowed."""
        try:
            return bool(self.accepts(value))
        except (TypeError, ValueError, LookupError, OverflowError):
            return False

    def check(self, name: str, value: Any) -> None:
        """Raise a DSLError if the option ``name`` may not be ``value``."""
        if not self.takes(value):
            values = value if isinstance(value, (list, tuple)) else [value]
            is_too_large = self.most is not None and any(isinstance(v, int) and v > self.most for v in values)
            raise refusal(name, value, f"at most {self.most}" if is_too_large else self.allowed)

    def __or__(self, other: "Rule") -> "Rule":
        most = other.most if self.most is None else self.most
        return Rule(f"{self.allowed}, or {other.allowed}", lambda v: self.takes(v) or other.takes(v), most)


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def integer(low: int, high: int = _LARGEST) -> Rule:
    limits = f"an integer >= {low}" if high >= _LARGEST else f"an integer in [{low}, {high}]"
    most = high if high >= _LARGEST else None
    return Rule(limits, lambda v: isinstance(v, int) and not isinstance(v, bool) and low <= v <= high, most)


def number(low: float = -math.inf, high: float = math.inf, above: bool = False, finite: bool = True) -> Rule:
    """A number from ``low`` to ``high``; with ``above`` one that is larger than ``low``."""
    words = "a number"
    if low > -math.inf:
        words += f" {'>' if above else '>='} {low}" if high == math.inf else f" in [{low}, {high}]"
    elif finite:
        words += " that is finite"
    return Rule(
        words,
        lambda v: (
            is_number(v)
            and low <= v <= high
            and not (above and v == low)
            and (math.isfinite(v) or (not finite and not math.isnan(v)))
        ),
    )


def one_of(*names: str, any_case: bool = False) -> Rule:
    known = {name.lower() for name in names} if any_case else set(names)
    return Rule(
        f"one of {', '.join(names)}", lambda v: isinstance(v, str) and (v.lower() if any_case else v) in known
    )


def list_of(
    rule: Rule, what: str, length: int | None = None, tuples: bool = False, some: bool = False, once: bool = False
) -> Rule:
    """A list of values that ``rule`` takes, called ``what`` in the plural.

    Args:
        some: whether it must have a value.
        once: whether no value may be repeated, in upper or lower case.
    """
    kinds = (list, tuple) if tuples else list
    many = f"{length} " if length else ""
    return Rule(
        f"a list of {many}{what}",
        lambda v: (
            isinstance(v, kinds)
            and all(map(rule.takes, v))
            and len(v) == (length or len(v))
            and bool(v or not some)
            and not (once and len({str(one).lower() for one in v}) < len(v))
        ),
        rule.most,
    )


def dict_of(keys: Rule, values: Rule, words: str) -> Rule:
    return Rule(
        words,
        lambda v: isinstance(v, dict) and all(map(keys.takes, v)) and all(map(values.takes, v.values())),
    )


def optional(rule: Rule) -> Rule:
    return Rule(f"{rule.allowed}, or None", lambda v: v is None or rule.takes(v), rule.most)


def interval_ends(text: Any) -> list[tuple[float, float]]:
    """The ends of the intervals that RecBole reads in ``text``, such as "[5,inf)" or "(0,1];[3,4)".

    Raises:
        ValueError: if one is malformed; RecBole drops it with a warning.
    """
    ends = []
    for part in str(text).split(";"):
        match = re.fullmatch(r"[\[(]([^,]+),([^,]+)[\])]", part.strip())
        if not match:
            raise ValueError(f"{part} is no interval")
        left, right = map(float, match.groups())
        if not left <= right:
            raise ValueError(f"{part} is empty")
        ends.append((left, right))
    return ends


def _is_name(value: Any) -> bool:
    if not isinstance(value, str):
        return False
    return bool(value.strip()) and not any(unicodedata.category(character) == "Cc" for character in value)


TEXT = Rule("a string", lambda v: isinstance(v, str))
NAME = Rule("a name, without line breaks and other control characters", _is_name)
NAMES = list_of(NAME, "names")
# where RecBole tests the truth of the value
FLAG = Rule("True or False", lambda v: v is None or isinstance(v, bool) or (is_number(v) and v in (0, 1)))
# where RecBole compares the value with True
TRUE_OR_FALSE = Rule("True or False", lambda v: v is None or isinstance(v, bool))
INTERVAL = Rule("intervals such as [5,inf) or (0,1];[3,4), the lower end first", lambda v: bool(interval_ends(v)))
ENCODING = Rule("an encoding that Python knows, such as utf-8", lambda v: bool(codecs.lookup(v)))
GPU_IDS = Rule(
    "the numbers of GPUs separated by commas, or '' for none",
    lambda v: (
        v is None
        or re.fullmatch(
            r"\s*|\s*(-?\d+|(GPU|MIG)-[\w/-]+)(\s*,\s*(-?\d+|(GPU|MIG)-[\w/-]+))*\s*",
            ",".join(map(str, v)) if isinstance(v, tuple) else str(v),
        )
        is not None
    ),
)


def like(name: str, default: Any) -> Rule | None:
    """The rule for a model's option ``name``, by its default; None if that says nothing."""
    if isinstance(default, bool):
        return FLAG
    if isinstance(default, int):
        rule = _count(name, default) if _COUNTS.search(name) else number()
        return rule | FLAG if default in (0, 1) and not _SIZES.search(name) else rule
    if isinstance(default, float):
        return _real(name)
    if isinstance(default, str):
        return TEXT
    if isinstance(default, list):
        return _list_like(name, default)
    if isinstance(default, dict):
        return Rule("a dict", lambda v: isinstance(v, dict))
    return None


# names of counts; the other options whose defaults are integers take any number
_COUNTS = re.compile(
    r"size|dim|num|layer|head|step|len|epoch|hop|iter|chan|kernel|strid|factor|order|rank|depth|memory|facet"
    r"|^n[vh]$|^k$|^n_|kfac|interval|k_interests|metrics_k"
)
_SIZES = re.compile(r"size|dim(ension)?$|heads?$|(^|_)factors$|num_basis|kfac|^n_memory$|rank|_len$|kernel|chan")
_SHARES = re.compile(r"drop|_prob$|_probs$|mask_ratio|ft_ratio|corruption_ratio")


def _count(name: str, default: int) -> Rule:
    return integer(1 if _SIZES.search(name) else 0 if default >= 0 else -_LARGEST)


def _real(name: str) -> Rule:
    return number(0, 1) if _SHARES.search(name) else number()


def _list_like(name: str, default: Iterable[Any]) -> Rule | None:
    kinds = {type(value) for value in default}
    if kinds == {int}:
        return list_of(integer(1), "integers >= 1")
    if kinds and kinds <= {int, float}:
        rule = _real(name)
        return list_of(rule, rule.allowed.replace("a number", "numbers"), tuples=True)
    if kinds == {str}:
        return NAMES
    return Rule("a list", lambda v: isinstance(v, list))
