"""The examples run as they stand."""

import json
import re
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

from recbole_dsl.checkpoint.checkpoint_file import read_checkpoint
from recbole_dsl.options.checked_config import CheckedConfig
from recbole_dsl.serving import Recommender

KINDS = "html", "plain"
EXAMPLES = Path(__file__).parent.parent / "examples"


def example(name):
    """What examples/nightly/NAME.py defines."""
    return SimpleNamespace(**runpy.run_path(str(EXAMPLES / "nightly" / f"{name}.py")))


def test_a_night_goes_on_from_the_one_before_and_what_is_worse_is_not_served(capsys):
    nightly, days = example("nightly"), example("days")
    small = {"embedding_size": 8, "density": 0.5, "data_cache": False}
    days.write_days("shop", days=4, users=40, items=30, a_day=300)
    for day in ("day-01", "day-02"):
        assert nightly.night("shop", day, window=2, **small)
        assert Path("shop/nights", day, "page.html").exists()
    (checkpoint,) = Path("shop/nights/day-02").glob("*.pth")
    (night,) = read_checkpoint(str(checkpoint))["nights"]
    kept, came, gone = night["rows"]["item_id"]
    assert kept and came and not gone
    served = Path("shop/model.rdsl").read_bytes()
    assert served == Path("shop/nights/day-02/model.rdsl").read_bytes()
    assert len(Recommender.load("shop/model.rdsl").recommend("u1")[0]) == 10
    capsys.readouterr()
    assert not nightly.night("shop", "day-03", window=2, floor=1.1, **small)
    assert "below 1.1; shop/model.rdsl stays as it was" in capsys.readouterr().out
    assert Path("shop/model.rdsl").read_bytes() == served
    assert nightly.model_before(Path("shop"), "day-04") == checkpoint
    assert not nightly.night("shop", "day-03") and capsys.readouterr().out == "day-03: is done already\n"
    lines = Path("shop/nights/day-03/day-03.inter").read_text().splitlines()
    assert len(lines) == 1 + sum(Path("shop/days", f"day-0{d}.inter").read_text().count("\n") - 1 for d in (2, 3))


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
