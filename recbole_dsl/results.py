"""The result of a command as one line of JSON on stdout, for a program; what a person watches is on stderr."""

import argparse
import json
import math
import sys
from collections.abc import Mapping
from typing import Any

from recbole_dsl.errors import refusal

FORMATS = ("text", "json")


def declare_format(parser: argparse.ArgumentParser) -> None:
    """Add ``--output-format``, which all commands share."""
    parser.add_argument(
        "--output-format",
        "--output_format",
        dest="output_format",
        help="json: the result on stdout, as one line of JSON (default where stdout is a pipe or a file); text: "
        "nothing but the text on stderr (default on a terminal)",
    )


def check_format(format: str | None) -> None:
    """Raise a DSLError if ``format`` is none."""
    if format is not None and format not in FORMATS:
        raise refusal("output-format", format, f"one of {', '.join(FORMATS)}")


def print_result(result: Mapping[str, Any], format: str | None) -> None:
    """Print ``result`` in ``format``; if None, as JSON unless stdout is a terminal."""
    if format == "json" or (format is None and not sys.stdout.isatty()):
        print(json.dumps(_finite(result), ensure_ascii=False), flush=True)


def _finite(value: Any) -> Any:
    """``value`` without NaN and infinities, which JSON does not have."""
    if isinstance(value, Mapping):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
