import os
import sys
import threading
import types
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recbole_dsl.patching import Patch, Setting, variable

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture
def scan(monkeypatch):
    """docs/changes.py."""
    monkeypatch.syspath_prepend(str(DOCS))
    import changes

    return changes


@pytest.fixture(autouse=True)
def owner(monkeypatch):
    module = types.ModuleType("owner")
    module.name = lambda: "usual"
    monkeypatch.setitem(sys.modules, "owner", module)
    return module


PATCH = Patch("owner", "name", "to try it")


def test_the_table_of_the_documentation_is_that_of_the_code(scan):
    assert scan.PAGE.read_text() == scan.page(), "write it anew: python docs/changes.py"
    found = [change for path in scan.files() for change in scan.declared(path)]
    assert len(found) > 50 and all(all(change) for change in found)


def test_nothing_is_changed_that_is_not_declared(scan):
    assert [line for path in scan.files() for line in scan.undeclared(path)] == []


@pytest.mark.parametrize(
    "code",
    [
        "import torch\ntorch.load = print",
        "from torch import nn\ndel nn.Linear.forward",
        "import recbole.trainer\nsetattr(recbole.trainer, 'XTrainer', None)",
        "import recbole.utils\nfor module in (recbole.utils, None):\n    module.init_seed = None",
        "import importlib\nmodule = importlib.import_module('ray')\nmodule.tune, x = 1, 2",
        "def f(function, other):\n    function.__code__ = other.__code__",
        "import os\nos.environ['A'] = 'b'",
        "import os\ndel os.environ['A']",
        "import os\nos.environ.update(A='b')",
        "import sys\nsys.modules['ray'] = None",
        "import sys\nsys.argv = []",
        "import sys\nsys.meta_path.insert(0, None)",
        "import sys\nsys.argv += ['x']",
        "import signal\nsignal.signal(15, print)",
        "import warnings\nwarnings.simplefilter('ignore')",
        "import logging\nlogging.getLogger().setLevel(0)",
        "import logging\ndef f():\n    logging.disable(20)",
        "import torch\ntorch.autograd.set_detect_anomaly(True)",
        "import torch\ntorch.backends.cudnn.benchmark = True",
        "import contextlib\nwith contextlib.redirect_stdout(None): pass",
    ],
)
def test_a_change_is_seen_and_may_be_declared(scan, code, monkeypatch, tmp_path):
    monkeypatch.setattr(scan, "ROOT", tmp_path)
    file = tmp_path / "file.py"
    file.write_text(code)
    assert len(list(scan.undeclared(file))) == 1
    indented = code.replace("\n", "\n    ")
    file.write_text(f"@changes('this', 'it is a test')\ndef function():\n    {indented}")
    assert list(scan.undeclared(file)) == []


def test_what_is_ones_own_is_no_change(scan, monkeypatch, tmp_path):
    monkeypatch.setattr(scan, "ROOT", tmp_path)
    file = tmp_path / "file.py"
    file.write_text("import os\nclass A:\n    pass\nA.x = 1\ndef f(self):\n    self.y = os.environ['A']\n")
    assert list(scan.undeclared(file)) == []


@given(st.permutations(range(4)), st.sampled_from([None, "usual"]))
def test_a_setting_is_put_back_in_whatever_order_blocks_are_left(order, usual):
    value = [usual]
    setting = Setting("value", "to try it", lambda: value[0], lambda new: value.__setitem__(0, new))
    blocks = {number: setting.by(number) for number in range(len(order))}
    for block in blocks.values():
        block.__enter__()
    inside = list(blocks)
    for number in order:
        assert value == [inside[-1]]
        blocks[number].__exit__(None, None, None)
        inside.remove(number)
    assert value == [usual]


def test_an_environment_variable_may_be_left_out(monkeypatch):
    monkeypatch.setenv("RECBOLE_DSL_TEST", "usual")
    setting = variable("RECBOLE_DSL_TEST", "to try it")
    with pytest.raises(KeyboardInterrupt), setting.by(None):
        assert "RECBOLE_DSL_TEST" not in os.environ
        raise KeyboardInterrupt
    assert os.environ["RECBOLE_DSL_TEST"] == "usual"


@given(st.permutations(range(4)))
def test_it_is_put_back_in_whatever_order_threads_leave(order):
    owner = sys.modules["owner"]
    usual = owner.name
    entered = threading.Barrier(len(order) + 1)
    may_leave = [threading.Event() for _ in order]
    seen = []

    def use(number):
        with PATCH.by(lambda: number):
            entered.wait()
            may_leave[number].wait()
            seen.append((number, owner.name()))
        seen.append((number, owner.name()))

    threads = [threading.Thread(target=use, args=(number,)) for number in order]
    for thread in threads:
        thread.start()
    entered.wait()
    assert owner.name() == "usual"
    for number in order:
        may_leave[number].set()
        threads[order.index(number)].join()
    assert sorted(seen, key=str) == sorted([(n, s) for n in order for s in (n, "usual")], key=str)
    assert owner.name is usual


def test_the_last_counts_within_and_an_error_puts_it_back(owner):
    usual = owner.name
    with pytest.raises(KeyboardInterrupt), PATCH.by(lambda: 1):
        with PATCH.by(lambda: 2):
            assert owner.name() == 2
            with PATCH.undone():
                assert owner.name() == "usual"
        assert owner.name() == 1
        raise KeyboardInterrupt
    assert owner.name is usual


def test_a_generator_that_is_left_in_another_thread_puts_it_back(owner):
    usual = owner.name

    def generator():
        with PATCH.by(lambda: 1):
            yield

    left = generator()
    next(left)
    thread = threading.Thread(target=left.close)
    thread.start()
    thread.join()
    assert owner.name is usual


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_fork_while_another_thread_holds_the_lock_does_not_hang():
    from recbole_dsl.patching import lock

    held, done = threading.Event(), threading.Event()

    def hold():
        with lock():
            held.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    child = os.fork()
    if child == 0:
        with PATCH.by(lambda: 1):
            os._exit(0 if sys.modules["owner"].name() == 1 else 1)
    assert os.waitpid(child, 0)[1] == 0
    done.set()
    thread.join()
