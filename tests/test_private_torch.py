import ast
import configparser
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from packaging.requirements import Requirement

from recbole_dsl import run_recbole_dsl
from recbole_dsl.private_torch import LOST, NEEDED

ROOT = Path(__file__).parents[1]
# hides names of PyTorch from the one place that asks for them
HIDE = """
import pkgutil
found = pkgutil.resolve_name
def hide(*names):
    def resolve(owner):
        hidden = {name.rpartition(".")[2] for name in names if name.rpartition(".")[0] == owner}
        class View:
            def __getattr__(self, name):
                if name in hidden:
                    raise AttributeError(name)
                return getattr(found(owner), name)
        return View()
    pkgutil.resolve_name = resolve
"""


def run(code):
    done = subprocess.run([sys.executable, "-c", HIDE + code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def is_private(name):
    return name.startswith("_") and not name.startswith("__")


def private_names(tree):
    """Names of PyTorch's with an underscore, as ``torch.a._b`` or imported."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "torch":
            parts = [*node.module.split("."), *(alias.name for alias in node.names)]
        elif isinstance(node, ast.Import):
            parts = [p for a in node.names if a.name.split(".")[0] == "torch" for p in a.name.split(".")]
        elif isinstance(node, ast.Attribute):
            parts = ast.unparse(node).split(".")
            parts = parts if parts[0] in ("torch", "nn", "optim", "dist", "F", "Tensor") else []
        else:
            parts = []
        if any(map(is_private, parts)):
            yield ".".join(parts)


def test_names_that_are_not_promised_are_asked_for_in_one_place():
    found = {
        f"{file.relative_to(ROOT)}: {name}"
        for file in (ROOT / "recbole_dsl").rglob("*.py")
        if file.name != "private_torch.py"
        for name in private_names(ast.parse(file.read_text()))
    }
    assert not found


def test_without_all_of_them_a_training_ends_with_the_same_numbers(options):
    models = {"BPR": {}, "LightGCN": {}, "SASRec": {"train_neg_sample_args": None, "loss_type": "CE"}}
    options = {**options, "epochs": 1, "load_col": {"inter": ["user_id", "item_id", "timestamp"]}}
    usual = [run_recbole_dsl(m, "tiny", config_dict={**options, **more}) for m, more in models.items()]
    said, warned = run(f"""
hide(*{list(LOST)})
import recbole_dsl
from recbole_dsl.sparse import weight
weight.LAZY_FROM = 1
for model, more in {models}.items():
    print([dict(recbole_dsl.run_recbole_dsl(model, "tiny", config_dict={{**{options}, **more}})["test_result"])])
""")
    lines = [line for line in said.splitlines() if line.startswith("[{")]
    assert [ast.literal_eval(line)[0] for line in lines] == [dict(one["test_result"]) for one in usual]
    for name, lost in LOST.items():
        assert f"torch {torch.__version__} has no {name}: {lost}" in warned.splitlines()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.by_hand
def test_without_any_one_of_them_weights_are_sparse():
    run(f"""
import os, torch
for name in {list(LOST)}:
    child = os.fork()
    if child == 0:
        hide(name)
        from recbole_dsl import DSLConfig, deferred_tables, sparsify
        from recbole_dsl.sparse import deferred, weight
        weight.LAZY_FROM = deferred.SMALLEST = 1
        with deferred_tables():
            model = torch.nn.Embedding(256, 8)
        sparsify(model, DSLConfig(density=0.1))
        ids = torch.arange(4)
        loss = (model(ids) @ model.weight[:64].T).logsumexp(1).sum()
        loss.backward()
        assert torch.isfinite(model.weight[ids]).all()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, name
""")


def test_what_is_needed_is_named():
    said, _ = run(f"""
hide({NEEDED[0]!r})
try:
    import recbole_dsl.sparse
    recbole_dsl.sparse.SparseWeight
except ValueError as error:
    print(error)
""")
    assert said.startswith(f"torch {torch.__version__} has no {NEEDED[0]}, without which")
    assert said.count("\n") == 1


@pytest.mark.parametrize("package", ["torch", "numpy", "pandas", "scipy"])
def test_what_is_installed_is_below_the_first_release_that_is_not_tested(package):
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    lines = config["options"]["install_requires"].splitlines()
    required = {r.name: r for r in (Requirement(line) for line in lines if line and not line.startswith("#"))}
    bounds = {specifier.operator for specifier in required[package].specifier}
    assert bounds == {">=", "<"}
    pins = (ROOT / "requirements-cpu.txt").read_text().splitlines()
    for pin in pins:
        if pin.startswith(f"{package}=="):
            assert pin.split("==")[1].split()[0] in required[package].specifier
