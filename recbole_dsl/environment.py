"""Whether the packages that RecBole and this one need are there, in releases that work."""

import configparser
import contextlib
import importlib
import io
import os
import random
import re
import sys
import warnings
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec

from recbole_dsl.errors import DSLError, one_line
from recbole_dsl.patching import changes

RECBOLE = "1.2.1"
# the module of a package that has not its name
_MODULES = {"pyyaml": "yaml", "scikit-learn": "sklearn"}
# RecBole imports these; each is built for some releases of NumPy or of system libraries,
# and what pip is to do where that fails
_COMPILED = {
    "numpy": ("numpy", "--force-reinstall numpy"),
    "scipy": ("scipy.sparse", "--upgrade scipy"),
    "pandas": ("pandas", "--upgrade pandas"),
    "scikit-learn": ("sklearn.metrics", "--upgrade scikit-learn"),
    # the build for CUDA, without the CUDA packages that its metadata ask for
    "torch": (
        "torch",
        "--force-reinstall --no-deps torch=={version} --index-url https://download.pytorch.org/whl/cpu "
        "(with a GPU: {pip} --force-reinstall torch)",
    ),
}


def check_environment() -> None:
    """Import what RecBole needs, before RecBole does.

    Raises:
        DSLError: if a package is missing, too old or cannot be imported; the message says what to type.
    """
    _check(oldest_releases(), with_recbole=True)


def check_serving_environment() -> None:
    """The same for what an artifact needs that is served without RecBole."""
    needed = ("numpy", "safetensors", "tqdm")
    _check({name: oldest for name, oldest in oldest_releases().items() if name in needed}, with_recbole=False)


def oldest_releases() -> dict[str, str]:
    """The packages that this one needs, but for RecBole, each with the oldest release that will do; "" for any.

    They are in the package's metadata, which in a checkout may be missing or of an earlier version, so that its
    setup.cfg ranks above. `packaging` would read them, but may be missing itself where this is to say what is.
    """
    lines: list[str] = []
    setup = configparser.ConfigParser()
    setup.read(os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "setup.cfg"))
    if setup.get("metadata", "name", fallback="") == "recbole-dsl":
        lines = setup["options"]["install_requires"].splitlines()
    else:
        with contextlib.suppress(PackageNotFoundError):
            lines = requires("recbole-dsl") or []
    found = {}
    for line in lines:
        match = re.match(r"([\w-]+)([^;]*)(?:; *python_version >= \"3\.(\d+)\")?$", line)
        # what has another condition is RecBole, or of an extra
        if match and sys.version_info >= (3, int(match[3] or 0)):
            oldest = re.search(r">=([\w.]+)", match[2])
            found[match[1].lower()] = oldest[1] if oldest else ""
    return found


def installed_versions(packages: Iterable[str]) -> dict[str, str]:
    """The releases of those of ``packages`` that are installed."""
    found = {}
    for package in packages:
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def _check(packages: dict[str, str], with_recbole: bool) -> None:
    faults, wanted, commands = [], [], []
    for package, oldest in packages.items():
        found = _version(package, _MODULES.get(package, package))
        if found is None or _release(found) < _release(oldest or "0"):
            faults.append(f"{package} is not installed" if found is None else f"{package} {found} is too old")
            wanted.append(f'"{package}>={oldest}"' if oldest else package)
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
        # scikit-learn is imported when it is called (compat/for_scikit_learn.py)
        if package in packages and package != "scikit-learn":
            import_compiled(package)


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


@changes("sys.stderr", "NumPy writes a page about modules that were built for another NumPy")
def import_compiled(package: str) -> None:
    """Import one of the compiled packages that RecBole needs, without drawing from Python's generator.

    scikit-learn may import rich, which draws an id; a run that imports it late would go on with other numbers.

    Raises:
        DSLError: if that fails; the message says what to type.
    """
    module, remedy = _COMPILED[package]
    state = random.getstate()
    try:
        with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            importlib.import_module(module)
    except Exception as error:
        # of any kind: a library that is not there, another NumPy than it was built for
        cause = error
        while cause.__cause__:
            cause = cause.__cause__
        reason = one_line(str(cause))[:200]
        found = (_version(package, module) or "").partition("+")[0]
        remedy = remedy.format(version=found, pip=_pip())
        raise DSLError(f"{package} cannot be imported ({reason}): {_pip()} {remedy}") from error
    finally:
        random.setstate(state)
