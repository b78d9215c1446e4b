"""The examples run as they stand."""

import json
import re
import runpy
import sys
from pathlib import Path

import pytest

from recbole_dsl.options.checked_config import CheckedConfig
from tests.running import train

KINDS = "html", "plain"
EXAMPLES = Path(__file__).parent.parent / "examples"


def run_nightly(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["nightly.py", *arguments])
    runpy.run_path(str(EXAMPLES / "nightly" / "nightly.py"), run_name="__main__")


def test_the_nightly_job_recommends_for_everyone_and_keeps_what_is_better(options, monkeypatch, capsys):
    train("BPR", options)
    run_nightly(monkeypatch, "saved", "out.csv")
    assert Path("out.csv").read_text().count("\n") == 1 + 40 * 10
    assert "out.csv: ten items for each of 40 users" in capsys.readouterr().out
    Path("out.csv").write_text("before")
    monkeypatch.setenv("FLOOR", "1.1")
    with pytest.raises(SystemExit, match=r"is too low; out\.csv stays as it is"):
        run_nightly(monkeypatch, "saved", "out.csv")
    assert Path("out.csv").read_text() == "before"


def output_of(cell):
    """What ``cell`` shows, but for its images."""
    return [
        output.get("text")
        or [output.get("ename"), *(output.get("data", {}).get(f"text/{kind}") for kind in KINDS)]
        for output in cell["outputs"]
    ]


@pytest.mark.parametrize("notebook", sorted(EXAMPLES.glob("*.ipynb")), ids=lambda file: file.stem)
def test_a_notebook_runs_and_is_read_on_a_page(notebook, monkeypatch):
    cells = json.loads(notebook.read_text())["cells"]
    assert sum(len(cell["source"]) for cell in cells) <= 60
    shown = json.dumps([output_of(cell) for cell in cells if cell["cell_type"] == "code"])
    assert len(shown) > 200 and "Error" not in shown, "run it: python examples/execute.py"
    assert not re.search(r"(?<![\w.:/<])/\w[\w.-]*/", shown), "it names a folder of the machine that ran it"
    short = {"epochs": 1, "show_progress": False}
    monkeypatch.setattr(CheckedConfig, "_load_cmd_line", lambda self: short)
    names = {"__name__": "notebook"}
    for cell in cells:
        if cell["cell_type"] == "code":
            source = "".join(cell["source"])
            exec(compile(source, str(notebook), "exec"), names)
