"""Load on the command `serve`: eight clients, a million items, beside implicit behind the same server.

    python -m benchmarks.serving_load --threads 1 --workers 1
    python -m benchmarks.serving_load --threads 1 --workers 2 --implicit .venv-implicit/bin/python

`--implicit` is a Python that has implicit and what the extra `serve` brings; without it ours runs alone. The
tables are those of benchmarks.serving. Clients run on the same machine.
"""

import argparse
import http.client
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from benchmarks.report import parse, print_header, print_table
from benchmarks.serving_fresh import write_tables
from benchmarks.serving_tables import power_law_tables
from recbole_dsl.serving import Recommender

# of every four requests: two for users, one for a history, one for similar items
KINDS = ("users", "users", "histories", "similar items")
# different requests, asked over and over in random order
_REQUESTS = 400
_WARM_UP = 2.0
_JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True)
class Request:
    """A request, and what `Recommender` answers."""

    kind: str
    call: tuple[str, str, str | None]
    expected: list[list[str]]


@dataclass
class Measured:
    """The seconds of each request by its kind, and how many went wrong."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: {kind: [] for kind in sorted({*KINDS})})
    wrong: int = 0
    lasted: float = 0.0


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table of requests a second and times, for each side."""
    parser = argparse.ArgumentParser(prog="benchmarks.serving_load", description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--users", type=int, default=1_000_000, help="of the generated data")
    parser.add_argument("--interactions", type=int, default=10_000_000, help="of the generated data")
    parser.add_argument("--epochs", type=int, default=2, help="on the generated data")
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--workers", type=int, default=1, help="processes of the server")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each measurement")
    parser.add_argument("--implicit", help="a Python with implicit, fastapi, uvicorn and prometheus-client")
    options = parse(parser, arguments)
    sizes = options.users, options.items, options.interactions
    tables = power_law_tables(options.data_path, *sizes, options.epochs)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "int8.rdsl"
        write_tables(path, *(table[1:] for table in tables), "int8")
        requests = make_requests(path, options.k)
        quiet, replaced = measure(options, _ours(options, path), requests, [None, path])
        measured = {"ours": quiet, "ours, the artifact replaced each second": replaced}
        if options.implicit:
            program = [options.implicit, "-m", "benchmarks.serving_load_implicit", str(path)]
            program.append(f"--workers={options.workers}")
            (measured["implicit"],) = measure(options, program, requests, is_compared=False)
    print_header(
        f"{options.clients} clients of a service",
        options,
        f"{options.users:,} users and {options.items:,} items, the power-law tables, D = 64, density 0.1, int8, "
        f"{options.workers} process(es). Half of the requests are for a user, a quarter for a history of 1 to 20 "
        f"items, a quarter for items similar to one; k = {options.k}. Each client asks as soon as it has its "
        "answer, on the machine that serves. implicit has the same vectors, dense, behind the same server. "
        f"Answers of ours that differ from the library's: {sum(one.wrong for one in measured.values())}.",
    )
    rows = [row for side, one in measured.items() for row in _rows(side, one)]
    print_table(["side", "requests for", "a second", "median ms", "99 %", "slowest"], rows)


def make_requests(path: Path, k: int) -> list[Request]:
    """Requests with the answers of `Recommender`, drawn with a fixed seed."""
    recommender, draw = Recommender.load(path), random.Random(0)
    recommender.prepare()
    users, items = recommender.users, recommender.items
    requests = []
    for number in range(_REQUESTS):
        kind = KINDS[number % len(KINDS)]
        if kind == "histories":
            history = [items[draw.randrange(len(items))] for _ in range(draw.randint(1, 20))]
            found, _ = recommender.recommend_for([history], k)
            call = ("POST", "/recommend_for", json.dumps({"histories": [history], "k": k}))
        elif kind == "users":
            token = users[draw.randrange(len(users))]
            found, _ = recommender.recommend([token], k)
            call = ("GET", f"/recommend?{urlencode({'users': token, 'k': k})}", None)
        else:
            token = items[draw.randrange(len(items))]
            found, _ = recommender.similar_items([token], k)
            call = ("GET", f"/similar_items?{urlencode({'items': token, 'k': k})}", None)
        expected = [[item for item in row if item is not None] for row in found.tolist()]
        requests.append(Request(kind, call, expected))
    return requests


def measure(
    options: argparse.Namespace,
    program: Sequence[str],
    requests: Sequence[Request],
    replaced: Sequence[Path | None] = (None,),
    is_compared: bool = True,
) -> list[Measured]:
    """Start the server ``program``, let the clients ask it, and end it.

    Args:
        replaced: for each measurement the file that a copy of itself takes the place of each second, or None.
        is_compared: whether answers are compared.

    Raises:
        RuntimeError: if the server does not answer, or with another status than 200.
    """
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    server = subprocess.Popen([*program, f"--port={port}"], env=environment)
    # the first is for the warm-up
    measured, is_done = [Measured()], threading.Event()
    failures: list[BaseException] = []

    def client(seed: int) -> None:
        draw, connection = random.Random(seed), http.client.HTTPConnection("127.0.0.1", port)
        try:
            while not is_done.is_set():
                request, into = requests[draw.randrange(len(requests))], measured[-1]
                method, target, body = request.call
                start = time.perf_counter()
                connection.request(method, target, body, _JSON if body else {})
                answer = connection.getresponse()
                content = answer.read()
                into.seconds[request.kind].append(time.perf_counter() - start)
                if answer.status != 200:
                    raise RuntimeError(f"{answer.status} {content.decode()}")
                if is_compared and json.loads(content)["items"] != request.expected:
                    into.wrong += 1
        except BaseException as error:
            failures.append(error)
            is_done.set()

    try:
        _wait_until_ready(port, server)
        clients = [threading.Thread(target=client, args=(seed,)) for seed in range(options.clients)]
        for one in clients:
            one.start()
        is_done.wait(_WARM_UP)
        for file in replaced:
            start = time.perf_counter()
            measured.append(Measured())
            while time.perf_counter() < start + options.seconds and not is_done.is_set():
                if file is not None:
                    shutil.copy(file, f"{file}.new")
                    os.replace(f"{file}.new", file)
                is_done.wait(min(1.0, options.seconds))
            measured[-1].lasted = time.perf_counter() - start
        is_done.set()
        for one in clients:
            one.join()
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait()
    if failures:
        raise RuntimeError("a request failed") from failures[0]
    return measured[1:]


def _ours(options: argparse.Namespace, path: Path) -> list[str]:
    serve = [sys.executable, "-m", "recbole_dsl", "serve", str(path)]
    return [*serve, f"--workers={options.workers}", "--reload_interval=0.2"]


def _wait_until_ready(port: int, server: "subprocess.Popen[Any]") -> None:
    while server.poll() is None:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        try:
            connection.request("GET", "/readyz")
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass
        finally:
            connection.close()
        time.sleep(0.1)
    raise RuntimeError("the server has ended")


def _rows(side: str, measured: Measured) -> list[list[str]]:
    everything = [seconds for some in measured.seconds.values() for seconds in some]
    return [
        [side, kind, f"{len(seconds) / measured.lasted:.0f}", *_times(seconds)]
        for kind, seconds in [("all", everything), *measured.seconds.items()]
    ]


def _times(seconds: Sequence[float]) -> list[str]:
    ordered = sorted(seconds)
    if not ordered:
        return ["", "", ""]
    places = (len(ordered) // 2, min(len(ordered) - 1, len(ordered) * 99 // 100), len(ordered) - 1)
    return [f"{1e3 * ordered[place]:.1f}" for place in places]


if __name__ == "__main__":
    main()
