"""Which release of a package is installed."""

import re
from importlib.metadata import version


def release(package: str) -> tuple[int, ...]:
    """The numbers that the version of ``package`` begins with, such as (2, 15, 0)."""
    return tuple(int(number) for number in re.match(r"\d+(\.\d+)*", version(package))[0].split("."))
