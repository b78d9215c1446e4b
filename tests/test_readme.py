"""The Python in the README runs as it stands, one block after the other."""

import re
import sys
from pathlib import Path

import recbole_dsl

README = Path(__file__).parent.parent / "README.md"


def test_every_example_runs(monkeypatch):
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.S)
    assert len(blocks) == 9
    # the command line ranks above everything, and shortens every training
    monkeypatch.setattr(sys, "argv", ["example.py", "--epochs=2", "--update_interval=20", "--show_progress=False"])
    try:
        for block in blocks:
            exec(compile(block, str(README), "exec"), {})
    finally:
        recbole_dsl.unregister()
