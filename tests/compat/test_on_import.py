import subprocess
import sys
from pathlib import Path

from recbole_dsl.compat import on_import
from recbole_dsl.compat.on_import import replaced

ROOT = Path(__file__).parents[2]


def test_importing_loads_none_of_the_packages():
    heavy = ["torch", "recbole", "ray", "numpy", "scipy", "pandas", "hyperopt", "thop"]
    code = f"import recbole_dsl.compat, sys; print([name for name in {heavy} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.stdout == "[]\n", run.stderr


def test_a_module_is_executed_within_and_changed_after(tmp_path, monkeypatch):
    (tmp_path / "changed_when_imported.py").write_text("import os\nseen = os.environ.get('WITHIN')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(on_import, "_around", {})
    monkeypatch.setattr(on_import, "_after", {})

    @on_import.replaces("changed_when_imported:seen", until="the end")
    def seen_twice(seen):
        return seen * 2

    @on_import.around_import("changed_when_imported", until="the end")
    def around():
        patch = monkeypatch.context()
        entered = patch.__enter__()
        entered.setenv("WITHIN", "yes")
        return type(
            "Leave", (), {"__enter__": lambda s: s, "__exit__": lambda s, *error: patch.__exit__(*error)}
        )()

    import changed_when_imported

    assert changed_when_imported.seen == "yesyes"
    del sys.modules["changed_when_imported"]


def test_a_function_that_modules_share_is_replaced_once(tmp_path, monkeypatch):
    (tmp_path / "home.py").write_text(
        "class Kind:\n    def method(self):\n        pass\ndef shared():\n    'doc'\n"
    )
    (tmp_path / "user.py").write_text("import home\nfrom home import shared\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(on_import, "_after", {})
    calls = []

    @on_import.replaces("home:shared", "user:shared", "user:len", "home:Kind.method", until="the end")
    def replacement(usual):
        calls.append(usual)
        return lambda *args: "new"

    import home
    import user

    assert home.shared is user.shared and home.shared() == home.Kind().method() == user.len() == "new"
    assert [call.__name__ for call in calls] == ["shared", "method", "len"]
    assert home.shared.__doc__ == "doc" and home.shared.__wrapped__ is calls[0]
    for name in ("home", "user"):
        del sys.modules[name]


def test_a_module_with_replaced_names_is_the_same_otherwise():
    import math

    view = replaced(math, pi=3)
    assert (view.pi, view.e, view.__name__, math.pi > 3) == (3, math.e, "math", True)
    assert replaced(view, e=2).pi == 3
