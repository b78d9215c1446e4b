"""Requests to a process that serves a million items: the first after `prepare`, and a reload under clients."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

KINDS = ("users", "histories", "similar items")

_COMMON = """
import json, random, sys, threading
from time import perf_counter
from recbole_dsl.serving import Recommender
_, path, k, n = sys.argv
k, n = int(k), int(n)
draw = random.Random(0)

def memory(name="VmRSS"):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) / 1e3 for line in file if line.startswith(name))

def timed(work):
    start = perf_counter()
    found = work()
    return perf_counter() - start, found

def token(tokens):
    return tokens[draw.randrange(len(tokens))]
"""
_FIRST = (
    _COMMON
    + """
start = memory()
loading, recommender = timed(lambda: Recommender.load(path))
loaded = memory()
preparing, _ = timed(recommender.prepare)
prepared = memory()
users, items = recommender.users, recommender.items
requests = {
    "users": lambda: (recommender.recommend, token(users)),
    "histories": lambda: (recommender.recommend_for, [[token(items) for _ in range(draw.randint(1, 20))]]),
    "similar items": lambda: (recommender.similar_items, token(items)),
}
seconds = {}
for kind, request in requests.items():
    calls = [request() for _ in range(n)]
    seconds[kind] = [timed(lambda: ask(what, k))[0] for ask, what in calls]
asked = memory()
other = Recommender.load(path)
other.prepare()
sizes = [start, loaded, prepared, asked, memory(), memory("VmHWM")]
print(json.dumps({"loading": loading, "preparing": preparing, "memory": sizes, "seconds": seconds}))
"""
)
_RELOAD = (
    _COMMON
    + """
CLIENTS = 8
serving = [Recommender.load(path)]
serving[0].prepare()
users, items = serving[0].users, serving[0].items
requests = [("recommend", token(users)) for _ in range(300)]
requests += [("recommend_for", [[token(items) for _ in range(5)]]) for _ in range(150)]
requests += [("similar_items", token(items)) for _ in range(150)]

def ask(request):
    items, scores = getattr(serving[0], request[0])(request[1], k)
    return items.tolist(), scores.tolist()

expected = [ask(request) for request in requests]
before, during, wrong, is_done = [], [], [0], threading.Event()

def client(seed):
    mine = random.Random(seed)
    while not is_done.is_set():
        which = mine.randrange(len(requests))
        into = during if reloading else before
        seconds, found = timed(lambda: ask(requests[which]))
        into.append(seconds)
        wrong[0] += found != expected[which]

reloading = False
clients = [threading.Thread(target=client, args=(seed,)) for seed in range(CLIENTS)]
for one in clients:
    one.start()
is_done.wait(3)
reloading, times = True, []
for _ in range(n):
    seconds, other = timed(lambda: Recommender.load(path))
    more, _ = timed(other.prepare)
    serving[0] = other
    times.append(seconds + more)
is_done.set()
for one in clients:
    one.join()
print(json.dumps({"wrong": wrong[0], "before": before, "during": during, "reloads": times, "memory": memory()}))
"""
)


def first_requests(path: Path, k: int, n: int) -> dict[str, Any]:
    """The seconds of the first ``n`` requests of each of `KINDS` in a process of its own, and its memory in MB."""
    return _run(_FIRST, path, k, n)


def reloads(path: Path, k: int, n: int) -> dict[str, Any]:
    """The seconds of requests by eight clients before and during ``n`` reloads, and of how many wrong answers."""
    return _run(_RELOAD, path, k, n)


def spread(seconds: Sequence[float]) -> list[str]:
    """Table cells, in ms: the median, the 99th percentile, the slowest, and that by the median."""
    ordered = sorted(seconds)
    middle, most = ordered[len(ordered) // 2], ordered[-1]
    of_99 = ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)]
    return [f"{1e3 * middle:.2f}", f"{1e3 * of_99:.2f}", f"{1e3 * most:.2f}", f"{most / middle:.1f} x"]


def _run(code: str, path: Path, *arguments: int) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", code, str(path), *map(str, arguments)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"exit status {done.returncode}: {done.stderr[-2000:]}")
    return json.loads(done.stdout)
