"""What is imported where is what the package asks for, or the extra of that part."""

import ast
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from setuptools.config.setupcfg import read_configuration

ROOT = Path(__file__).parent.parent
OPTIONS = read_configuration(ROOT / "setup.cfg")["options"]
# parts that an extra is for; what the extra brings they may import
EXTRAS = {"tuning": "tune", "compat": "tune", "serving": "serve", "service": "serve", "compiling.py": "serve"}
# data/ reads faster with pyarrow; serving/ names it where --format=parquet needs it; markupsafe is of jinja2,
# pydantic and starlette of fastapi
OPTIONAL = {
    "data": {"pyarrow"},
    "serving": {"pyarrow"},
    "report": {"markupsafe"},
    "service": {"pydantic", "starlette"},
}


def names(lines):
    return {Requirement(line).name.lower().replace("_", "-") for line in lines}


def imported(file):
    """The packages that ``file`` imports anywhere in it, without this one and the standard library."""
    for node in ast.walk(ast.parse(file.read_text())):
        modules = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            modules = [node.module]
        for module in modules:
            name = module.partition(".")[0]
            if name not in sys.stdlib_module_names and name != "recbole_dsl":
                yield name


@pytest.mark.parametrize("part", sorted(p.name for p in (ROOT / "recbole_dsl").iterdir() if p.name[0] != "_"))
def test_imports_are_asked_for(part):
    allowed = names(OPTIONS["install_requires"]) | OPTIONAL.get(part, set())
    if part in EXTRAS:
        allowed |= names(OPTIONS["extras_require"][EXTRAS[part]])
    owners, place = packages_distributions(), ROOT / "recbole_dsl" / part
    for file in [place, *place.rglob("*.py")]:
        for module in imported(file) if file.is_file() else ():
            of_module = {owner.lower().replace("_", "-") for owner in owners.get(module, [module])}
            assert of_module & allowed, f"{file.relative_to(ROOT)} imports {module}"
