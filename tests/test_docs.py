"""The documentation and the README: their Python runs as it stands, their commands name options that there are."""

import argparse
import json
import re
import runpy
import shlex
import shutil
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml
from recbole.config import Config

import recbole_dsl
from recbole_dsl import cli, run_recbole_dsl, serving
from recbole_dsl.config import OPTIONS
from recbole_dsl.initialisation.masks import INITIALISERS
from recbole_dsl.options.checked_config import CheckedConfig
from recbole_dsl.results import declare_format
from recbole_dsl.topology.grow_criteria import GROW
from recbole_dsl.topology.prune_criteria import PRUNE

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LINKED = [
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "results").glob("*.md")),
    *sorted((ROOT / "examples").glob("*.ipynb")),
]
# what RecBole's own Config reads from the command line
SHORT = ["example.py", "--epochs=1", "--update_interval=5", "--show_progress=False", "--train_batch_size=4096"]


def shorten(patch):
    """Give every training in an example, by our calls too, the options SHORT."""
    patch.setattr(sys, "argv", SHORT)
    patch.setattr(CheckedConfig, "_load_cmd_line", Config._load_cmd_line)


def blocks_of(page):
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), flags=re.S | re.M)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with a model that was trained before, as the pages take one for granted."""
    with pytest.MonkeyPatch.context() as patch:
        shorten(patch)
        patch.chdir(tmp_path_factory.mktemp("saved"))
        run_recbole_dsl(model="BPR", dataset="ml-100k")
        return Path("saved").resolve()


@pytest.mark.parametrize("page", [page for page in PAGES if blocks_of(page)], ids=lambda page: page.stem)
def test_every_example_runs(page, saved, monkeypatch):
    shutil.copytree(saved, "saved")
    shorten(monkeypatch)
    for table in (PRUNE, GROW, INITIALISERS):
        for name, value in table.items():
            monkeypatch.setitem(table, name, value)
    known = [(table, set(table)) for table in (PRUNE, GROW, INITIALISERS)]
    try:
        for block in blocks_of(page):
            exec(compile(block, str(page), "exec"), {"__name__": "example"})
    finally:
        recbole_dsl.unregister()
        for table, names in known:
            for name in set(table) - names:
                del table[name]


def commands_of(page):
    """The lines of ``page`` that are a command of ours, as words without what is around it."""
    for line in re.findall(
        r"^    (?!  )(.*(?:recbole-dsl|run_recbole_dsl\.py) .*)$", page.read_text(), flags=re.M
    ):
        for part in line.split("&&"):
            # without where its output goes
            words = shlex.split(re.split(r" (?:>|\|) ", part)[0], comments=True)
            starts = [i for i, word in enumerate(words) if word in ("recbole-dsl", "run_recbole_dsl.py")]
            if starts and "..." not in words:
                yield words[starts[0] :]


@pytest.mark.parametrize("page", [page for page in PAGES if [*commands_of(page)]], ids=lambda page: page.stem)
def test_every_command_names_options_that_there_are(page):
    # those of RecBole that the pages name
    of_recbole = {"data_path", "use_gpu", "learner", "epochs", "checkpoint_dir"}
    for words in commands_of(page):
        name, *rest = words[1:] if words[0] == "recbole-dsl" else ["train", *words[1:]]
        parser = argparse.ArgumentParser(allow_abbrev=False)
        cli.COMMANDS[name].declare(parser)
        declare_format(parser)
        _, others = parser.parse_known_args(rest)
        unknown = {word[2:].partition("=")[0] for word in others} - set(OPTIONS) - of_recbole
        assert not unknown, f"{page.name}: {' '.join(words)}"


def test_the_files_that_the_pages_name_are_there():
    for page in PAGES:
        for file in re.findall(r"\b((?:properties|examples|benchmarks)/[\w./-]+\w)", page.read_text()):
            assert (ROOT / file).exists(), f"{page.name}: {file}"


def text_of(page):
    """The text of ``page``, of a notebook that around its code."""
    if page.suffix != ".ipynb":
        return page.read_text()
    cells = json.loads(page.read_text())["cells"]
    return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


def anchors_of(page):
    """The anchors of the headings of ``page``, as code hosts and the documentation make them."""
    headings = re.findall(
        r"^#+ (.*)$", re.sub(r"^```.*?^```", "", page.read_text(), flags=re.S | re.M), flags=re.M
    )
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [*PAGES, *LINKED], ids=lambda page: page.stem)
def test_every_link_leads_somewhere(page):
    # those of a site, and of what a page of results stands beside in it
    folders = [page.parent, ROOT] if page.parent.name == "docs" else [page.parent]
    for link in re.findall(r"\]\(([^)\s]+)\)|(?:src|href)=\"([^\"]+)\"", text_of(page)):
        target, _, anchor = (link[0] or link[1]).partition("#")
        if ":" in target:
            continue
        found = [path for folder in folders if (path := folder / target if target else page).exists()]
        assert found, f"{page.name}: {target}"
        assert not anchor or anchor in anchors_of(found[0]), f"{page.name}: {target}#{anchor}"


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
def test_a_recorded_terminal_shows_what_a_command_said_and_scrolls():
    terminal = runpy.run_path(str(ROOT / "docs" / "terminal.py"))
    program = "print('bar 50 %\\rdone    '); print('\\x1b[31m<red>\\x1b[0m'); [print(n) for n in range(40)]"
    command = [sys.executable, "-c", program]
    lines = [line for _, line in terminal["record"](command)]
    assert lines == ["done", "<red>", *map(str, range(40))]
    drawing = ElementTree.fromstring(terminal["drawn"](["x"], [(0.5, line) for line in lines]))
    texts = ["".join(text.itertext()) for text in drawing.iter("{http://www.w3.org/2000/svg}text")]
    assert texts == ["$ x", *lines]
    # 43 rows, of which the last 30 stay
    assert f"translateY(-{13 * 19}px); animation" in ElementTree.tostring(drawing, "unicode")
    with pytest.raises(SystemExit, match="no"):
        terminal["record"]([sys.executable, "-c", "import sys; sys.exit('no')"])


def test_every_public_name_is_in_the_reference():
    text = (ROOT / "docs" / "reference.md").read_text()
    found = re.findall(r"^::: (.*)$", text, flags=re.M)
    names = [f"recbole_dsl.{name}" for name in recbole_dsl.__all__]
    assert sorted(found) == sorted([*names, *(f"recbole_dsl.serving.{name}" for name in serving.__all__)])


def test_every_page_is_in_the_navigation():
    navigation = re.findall(r": ([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), flags=re.M)
    assert {page.name for page in PAGES[1:]} - {"results.md"} <= {Path(name).name for name in navigation}


def test_the_options_are_those_that_the_page_shows():
    shown = yaml.safe_load((ROOT / "properties" / "dsl.yaml").read_text())
    assert set(shown) == set(OPTIONS)
