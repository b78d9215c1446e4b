"""What a user is told whose environment lacks something: each case in a fresh process."""

import configparser
import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from recbole_dsl.environment import _MODULES, RECBOLE, check_environment, oldest_releases

ROOT = Path(__file__).parent.parent
OLDEST = oldest_releases()


def command(folder, *options):
    """The command, in a process that looks into ``folder`` before all others."""
    path = os.pathsep.join(map(str, (folder, ROOT)))
    done = subprocess.run(
        [sys.executable, *options, "-m", "recbole_dsl", "train", "--model=BPR", "--epochs=1"],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}, timeout=600,
    )  # fmt: skip
    assert done.returncode == 2 and done.stdout == "" and os.listdir() == []
    (line,) = done.stderr.splitlines()
    return line


def pretend(folder, package, release):
    """A release of a package by its metadata."""
    metadata = folder / f"{package.replace('-', '_')}-{release}.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {release}\n")


@pytest.fixture
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("packages")


def test_the_packages_of_these_tests_do():
    check_environment()


def test_the_oldest_releases_are_those_of_the_metadata():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    lines = [line for line in setup["options"]["install_requires"].splitlines() if line and line[0] != "#"]
    asked = [requirement for requirement in map(Requirement, lines) if requirement.name != "recbole"]
    assert {
        one.name: next((s.version for s in one.specifier if s.operator == ">="), "")
        for one in asked
        if one.marker is None or one.marker.evaluate()
    } == OLDEST
    assert f"recbole=={RECBOLE};" in setup["options"]["install_requires"]


def test_an_installed_package_reads_its_metadata(folder):
    (folder / "recbole_dsl").symlink_to(ROOT / "recbole_dsl")
    pretend(folder, "recbole-dsl", "9.9")
    with open(folder / "recbole_dsl-9.9.dist-info" / "METADATA", "a") as metadata:
        for line in ("torch<9,>=2.6", "thop", 'old>=1; python_version < "3"', 'new>=2; python_version >= "3.9"',
                     'ray[tune]>=2.6.3; extra == "tune"'):  # fmt: skip
            metadata.write(f"Requires-Dist: {line}\n")
    script = "from recbole_dsl.environment import oldest_releases; print(oldest_releases())"
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment, cwd=folder
    )
    assert done.stdout == "{'torch': '2.6', 'thop': '', 'new': '2'}\n", done.stderr


def test_an_empty_environment_is_told_all_that_it_lacks(folder):
    line = command(folder, "-S")
    assert all(
        (f"{package} is not installed" in line and f'"{package}>={oldest}"' in line) or not oldest
        for package, oldest in OLDEST.items()
    )
    assert line.endswith(f" && uv pip install --no-deps recbole=={RECBOLE}")


@pytest.mark.parametrize("package", [package for package, oldest in OLDEST.items() if oldest])
def test_a_release_that_is_too_old_is_named(folder, package):
    pretend(folder, package, "0.1.0.dev3+cpu")
    line = command(folder)
    assert f": {package} 0.1.0.dev3+cpu is too old: " in line
    assert line.endswith(f'pip install "{package}>={OLDEST[package]}"')


def test_another_recbole_is_named(folder):
    pretend(folder, "recbole", "1.1.1")
    line = command(folder)
    assert f": RecBole 1.1.1 is another than {RECBOLE}: " in line
    assert line.endswith(f"pip install --no-deps recbole=={RECBOLE}")


@pytest.mark.parametrize(
    "package, module, error, remedy",
    [
        ("numpy", "numpy", "ImportError('no extension\\nmodule')", "--force-reinstall numpy"),
        ("scipy", "scipy", "AttributeError('_ARRAY_API not found')", "--upgrade scipy"),
        ("pandas", "pandas", "ValueError('numpy.dtype size changed')", "--upgrade pandas"),
        ("torch", "torch", "OSError('libcudart.so: cannot open shared object file')", "--force-reinstall torch)"),
    ],
)
def test_a_package_that_fails_to_import_is_named(folder, package, module, error, remedy):
    (folder / f"{module}.py").write_text(f"import sys\nprint('a page', file=sys.stderr)\nraise {error}\n")
    line = command(folder)
    reason = re.search(r"'(.*)'", error)[1].replace("\\n", " ")
    assert f": {package} cannot be imported ({reason}): " in line and line.endswith(f"pip install {remedy}")
    # a plain pip install of a PyTorch that is there need not bring another build
    assert package != "torch" or f"torch=={version('torch').partition('+')[0]} --index-url" in line


def test_checkouts_on_the_path_are_taken_as_they_are(folder):
    """They have no metadata to say their release."""
    for module in ("recbole", *(_MODULES.get(package, package) for package in OLDEST)):
        (folder / module).mkdir()
        for file in ("__init__.py", "sparse.py", "metrics.py"):
            (folder / module / file).write_text("")
    script = "from recbole_dsl.environment import check_environment; check_environment()"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (folder, ROOT)))}
    subprocess.run([sys.executable, "-S", "-c", script], check=True, env=environment, timeout=600)


def test_a_late_import_draws_no_random_number():
    program = (
        "import random\n"
        "from recbole_dsl.environment import import_compiled\n"
        "state = random.getstate()\n"
        "import_compiled('scikit-learn')\n"
        "import sklearn.metrics\n"
        "assert random.getstate() == state\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
