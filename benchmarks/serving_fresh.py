"""From the start of a process to its first recommendations, and the memory that it takes. Linux only."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
import scipy.sparse as sp
import torch

from recbole_dsl.serving.artifact import write_artifact
from recbole_dsl.serving.csr import CSR
from recbole_dsl.serving.packed_table import PackedTable
from recbole_dsl.serving.tokens import Tokens
from recbole_dsl.serving.user_histories import UserHistories

_OURS = """
import sys
from recbole_dsl.serving import Recommender
_, path, user, k = sys.argv
items, scores = Recommender.load(path).recommend(f"u{user}", k=int(k))
assert not {"torch", "recbole", "ray"} & {*sys.modules}
print(*(item[1:] for item in items))
"""
_DENSE = """
import sys
import torch
_, path, user, k = sys.argv
tables = torch.load(path, weights_only=True, mmap=%s)
print(*(tables["items"] @ tables["users"][int(user)]).topk(int(k)).indices.tolist())
"""
# resident bytes at most, of this program alone; what waiting for a process tells counts what started it too
_PEAK = """
print(*(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM:")))
"""
_ALL = """
import sys
from time import perf_counter
from recbole_dsl.serving import Recommender
_, path, k = sys.argv
start = perf_counter()
recommender = Recommender.load(path)
recommender.recommend(recommender.users.all.tolist(), k=int(k))
print(perf_counter() - start)
"""
SIDES = {
    "torch.load of the dense tables": (_DENSE % False, "dense.pt"),
    "the same, mmap=True": (_DENSE % True, "dense.pt"),
    "ours, fp32": (_OURS, "fp32.rdsl"),
    "ours, int8": (_OURS, "int8.rdsl"),
}


@dataclass(frozen=True)
class Answer:
    """What a process said and took.

    Attributes:
        items: the ids of the items that it recommends.
        seconds: from its start until it ended.
        peak: most resident bytes.
    """

    items: tuple[int, ...]
    seconds: float
    peak: int


def write_files(folder: Path, users: sp.csr_matrix, items: sp.csr_matrix) -> None:
    """The files of `SIDES`, of tables without padding; the tokens are the ids after a letter."""
    dense = {"users": torch.from_numpy(users.toarray()), "items": torch.from_numpy(items.toarray())}
    torch.save(dense, folder / "dense.pt")
    for values in ("fp32", "int8"):
        write_tables(folder / f"{values}.rdsl", users, items, values)


def write_tables(
    path: Path, users: sp.csr_matrix, items: sp.csr_matrix, values: str, seen: CSR | None = None
) -> None:
    """An artifact of two tables (n, 64), whose tokens are u0, u1, ... and i0, i1, ...; ``seen``: a list a user."""
    tables = {"users": _table(users, values), "items": _table(items, values)}
    n_users, n_items = users.shape[0], items.shape[0]
    nothing = CSR(np.zeros(n_users + 1, np.int64), np.zeros(0, np.int64))
    level = "none" if seen is None else "trained"
    arrays = {
        **Tokens.of([f"u{i}" for i in range(n_users)], "users").arrays("users"),
        **Tokens.of([f"i{i}" for i in range(n_items)], "items").arrays("items"),
        **UserHistories.of(seen or nothing, seen or nothing, n_items, level).arrays(),
    }
    for side, table in tables.items():
        arrays.update(table.arrays(f"product.{side}"))
    scorer = {"transform": "none", "has_bias": False, **{side: t.describe() for side, t in tables.items()}}
    header = {"kind": "product", "model": "BPR", "dataset": "generated", "n_users": n_users, "n_items": n_items}
    write_artifact(str(path), {**header, "options": {}, "scorer": scorer}, arrays)


def ask(side: str, folder: Path, user: int, k: int) -> Answer:
    """Start a process of ``side`` and let it recommend ``k`` items to one user.

    Raises:
        RuntimeError: with the end of its output, if it fails.
    """
    code, file = SIDES[side]
    start = perf_counter()
    said = _run(code + _PEAK, folder / file, str(user), str(k))
    seconds = perf_counter() - start
    items, peak = said.splitlines()
    return Answer(tuple(map(int, items.split())), seconds, 1024 * int(peak))


def ask_for_all(path: Path, k: int) -> float:
    """The seconds that a process of its own takes for all users, from reading the artifact to the last answer."""
    return float(_run(_ALL, path, str(k)))


def _run(code: str, path: Path, *arguments: str) -> str:
    threads = str(torch.get_num_threads())
    done = subprocess.run(
        [sys.executable, "-c", code, str(path), *arguments],
        env={**os.environ, **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), threads)},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"exit status {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout


def _table(matrix: sp.csr_matrix, values: str) -> PackedTable:
    columns, offsets = matrix.indices.astype(np.uint8), matrix.indptr.astype(np.int64)
    return PackedTable.of(CSR(offsets, columns, matrix.data, matrix.shape[1]), values)
