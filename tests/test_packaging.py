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
EXTRAS = {"tuning": "tune", "compat": "tune", "serving": "serve"}
# imported where a user has them, and an error of one line, or nothing, where not: compat/ for other packages' sake,
# pyarrow for --format=parquet, wandb for RecBole's log_wandb
OPTIONAL = {"compat": {"wandb", "pyarrow"}, "serving": {"pyarrow"}, "training": {"wandb"}}


def names(lines):
    return {Requirement(line).name.lower() for line in lines}


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


@pytest.mark.parametrize("folder", sorted({p.parent for p in (ROOT / "recbole_dsl").rglob("*.py")}), ids=str)
def test_imports_are_asked_for(folder):
    part = folder.relative_to(ROOT / "recbole_dsl").parts[:1]
    part = part[0] if part else ""
    allowed = names(OPTIONS["install_requires"]) | OPTIONAL.get(part, set())
    if part in EXTRAS:
        allowed |= names(OPTIONS["extras_require"][EXTRAS[part]])
    distributions = packages_distributions()
    for file in folder.glob("*.py"):
        for module in imported(file):
            owners = {owner.lower() for owner in distributions.get(module, [module])}
            assert owners & allowed, f"{file.relative_to(ROOT)} imports {module}"
