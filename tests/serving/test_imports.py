"""Serving a product in a process in which PyTorch, RecBole and Ray cannot be imported."""

import subprocess
import sys
from pathlib import Path

from tests.serving.artifacts import make

ROOT = Path(__file__).parent.parent.parent
WITHOUT = """
import sys
class Refused:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "recbole", "ray", "pandas", "sklearn"):
            raise ImportError(f"{name} must not be imported")
sys.meta_path.insert(0, Refused())
"""


def run(code, *arguments):
    """``code`` in such a process."""
    return subprocess.run(
        [sys.executable, "-c", WITHOUT + code, *arguments],
        capture_output=True, text=True, timeout=100, env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def test_a_product_is_served_with_neither():
    done = run(
        """
from recbole_dsl.serving import Recommender
recommender = Recommender.load(sys.argv[1])
print(recommender.recommend("u1", 2)[0], recommender.recommend_for([["i1", "i2"]], 2)[0])
print(recommender.similar_items("i1", 2)[0], recommender.to_numpy().users.shape)
""",
        make().write(),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("i") >= 6


def test_the_command_recommends_with_neither():
    done = run("from recbole_dsl.cli import main; main(sys.argv[1:])", "recommend", make().write(), "--users=all")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("user,rank,item,score\nu0,1,i")
