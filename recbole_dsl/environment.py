"""Whether the packages that RecBole and this one need are there, in releases that work."""

import contextlib
import importlib
import io
import re
import warnings
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from recbole_dsl.errors import DSLError

RECBOLE = "1.2.1"

# of each package the oldest release that is tested, and a module of it
OLDEST = {
    "torch": ("2.6", "torch"),
    "numpy": ("1.26", "numpy"),
    "pandas": ("2.0", "pandas"),
    "scipy": ("1.10", "scipy"),
    "pyyaml": ("6.0", "yaml"),
    "safetensors": ("0.5", "safetensors"),
    "colorama": ("0.4.4", "colorama"),
    "colorlog": ("4.7.2", "colorlog"),
    "psutil": ("5.9.5", "psutil"),
    "scikit-learn": ("1.3", "sklearn"),
    "tensorboard": ("2.13", "tensorboard"),
    "texttable": ("1.6.3", "texttable"),
    "thop": ("0.1.1.post2207130030", "thop"),
    "tqdm": ("4.64", "tqdm"),
}

# RecBole imports these in any case; each is built for some releases of NumPy or of system libraries,
# and what pip is to do where that fails
_COMPILED = {
    "numpy": ("numpy", "--force-reinstall numpy"),
    "scipy": ("scipy.sparse", "--upgrade scipy"),
    "pandas": ("pandas", "--upgrade pandas"),
    "scikit-learn": ("sklearn.metrics", "--upgrade scikit-learn"),
    # brings the CUDA packages that it asks for
    "torch": ("torch", "torch"),
}


def check_environment() -> None:
    """Import what RecBole needs, before RecBole does.

    Raises:
        DSLError: if a package is missing, too old or cannot be imported; the message says what to type.
    """
    _check(OLDEST, with_recbole=True)


def check_serving_environment() -> None:
    """The same for what an artifact needs that is served without RecBole."""
    _check(("numpy", "safetensors", "tqdm"), with_recbole=False)


def _check(packages: Iterable[str], with_recbole: bool) -> None:
    faults, wanted, commands = [], [], []
    for package in packages:
        oldest, module = OLDEST[package]
        found = _version(package, module)
        if found is None or _release(found) < _release(oldest):
            faults.append(f"{package} is not installed" if found is None else f"{package} {found} is too old")
            wanted.append(f'"{package}>={oldest}"')
    if wanted:
        commands.append(f"{_pip()} {' '.join(wanted)}")
    found = _version("recbole", "recbole") if with_recbole else RECBOLE
    if found not in (RECBOLE, ""):
        faults.append(
            "RecBole is not installed" if found is None else f"RecBole {found} is another than {RECBOLE}"
        )
        # what its metadata asks for does not exist for today's Python
        commands.append(f"{_pip()} --no-deps recbole=={RECBOLE}")
    if faults:
        raise DSLError(f"{', '.join(faults)}: {' && '.join(commands)}")
    for package in _COMPILED:
        if package in packages:
            _import(package)


def _version(package: str, module: str) -> str | None:
    """The release of ``package``, "" if it does not say, None if it is not there."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "" if find_spec(module) else None


def _release(text: str) -> list[float]:
    return [int(number) for number in re.findall(r"\d+", text.partition("+")[0])] or [float("inf")]


def _pip() -> str:
    return "pip install" if find_spec("pip") else "uv pip install"


def _import(package: str) -> None:
    module, remedy = _COMPILED[package]
    try:
        # NumPy writes a page about modules that were built for another NumPy
        with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            importlib.import_module(module)
    except Exception as error:
        # of any kind: a library that is not there, another NumPy than it was built for
        cause = error
        while cause.__cause__:
            cause = cause.__cause__
        reason = " ".join(str(cause).split())[:200]
        raise DSLError(f"{package} cannot be imported ({reason}): {_pip()} {remedy}") from error
