"""The lines of the dataset "tiny", to be changed."""

import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from tests.tiny import write_tiny


@cache
def _text(suffix: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        write_tiny(Path(folder) / "tiny")
        return (Path(folder) / "tiny" / f"tiny.{suffix}").read_text()


def lines(suffix: str = "inter") -> list[str]:
    """The header and the lines of tiny.``suffix``."""
    return _text(suffix).splitlines()


def inter(changes: Mapping[int, str], suffix: str = "inter") -> str:
    """tiny.``suffix`` with other lines, counted from 1: the header."""
    changed = lines(suffix)
    for number, line in changes.items():
        changed[number - 1] = line
    return "\n".join(changed) + "\n"
