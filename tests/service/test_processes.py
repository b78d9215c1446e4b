"""The command as processes: new artifacts and kills under load, and no wrong answer."""

import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

httpx = pytest.importorskip("httpx")
for needed in ("fastapi", "uvicorn", "prometheus_client"):
    pytest.importorskip(needed)

from recbole_dsl.serving import Recommender  # noqa: E402
from tests.serving.artifacts import make  # noqa: E402

ROOT = Path(__file__).parents[2]


def serve(port, *options):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "recbole_dsl", "serve", "model.rdsl", f"--port={port}", *options]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as found:
        return found.getsockname()[1]


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


class Clients:
    """Threads that ask without a pause, and compare each answer with that of the artifact that it names."""

    def __init__(self, port, expected):
        self.url, self.expected = f"http://127.0.0.1:{port}", expected
        self.seen, self.wrong, self._is_done = set(), [], threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(seed,)) for seed in range(4)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._is_done.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, seed):
        draw = random.Random(seed)
        with httpx.Client(verify=False) as client:
            while not self._is_done.is_set():
                user = f"u{draw.randrange(12)}"
                try:
                    found = client.get(f"{self.url}/recommend?users={user}&k=5")
                except httpx.HTTPError:
                    found = None
                # there is nobody for a while after a kill
                if found is None or found.status_code == 503:
                    time.sleep(0.1)
                    continue
                digest = found.headers["X-Artifact"]
                if found.status_code != 200 or found.json()["items"] != self.expected[digest][user]:
                    self.wrong.append((digest, user, found.text))
                self.seen.add(digest)

    def wait_until_seen(self, digest):
        wait_for(lambda: digest in self.seen)


def test_nothing_is_answered_wrong_while_artifacts_and_processes_change():
    expected, digests = {}, []
    for seed in range(3):
        recommender = Recommender.load(make(seed).write(f"{seed}.rdsl"))
        digests.append(recommender.header["checksum"][:12])
        expected[digests[-1]] = {
            f"u{user}": [recommender.recommend(f"u{user}", 5)[0].tolist()] for user in range(12)
        }
    port, options = free_port(), ["--workers=2", "--reload_interval=0.05"]
    os.replace("0.rdsl", "model.rdsl")
    first = serve(port, *options)
    with Clients(port, expected) as clients:
        clients.wait_until_seen(digests[0])
        os.replace("1.rdsl", "model.rdsl")
        clients.wait_until_seen(digests[1])
        first.send_signal(signal.SIGKILL)
        first.wait()
        # its workers end by themselves, and leave the port
        wait_for(lambda: not is_open(port))
        os.replace("2.rdsl", "model.rdsl")
        second = serve(port, *options)
        clients.wait_until_seen(digests[2])
        # workers of the first service may have answered so far, on connections that were open
        wait_for(lambda: is_open(port))
        # the clients of one worker's connections go on with the other
        metrics = f"http://127.0.0.1:{port}/metrics"
        wait_for(lambda: 'path="/recommend",status="200"' in httpx.get(metrics).text)
        second.send_signal(signal.SIGTERM)
        second.wait(30)
    assert clients.wrong == []


@pytest.mark.parametrize("workers", [1, 2])
def test_a_client_that_sends_half_a_request_does_not_keep_the_service(workers):
    make().write()
    port = free_port()
    service = serve(port, f"--workers={workers}")
    wait_for(lambda: is_open(port) and httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200)
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"POST /recommend HTTP/1.1\r\nHost: here\r\nContent-Length: 1000\r\n\r\n{")
        time.sleep(0.5)
        service.send_signal(signal.SIGTERM)
        service.wait(30)


def is_open(port):
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.parametrize(
    "options, line",
    [
        (["--port=0"], "port=0: must be an integer from 1 to 65535"),
        (["--workers=many"], "workers=many: must be an integer from 1 to 1024"),
        (["--reload_interval=nan"], "reload_interval=nan: must be a number from 0.01 to 86400.0"),
        (["--kk=3"], "--kk=3: must be one of the options that --help lists, written --name=value"),
        (["--new_items=none"], "new_items=none: must be a file that can be read: No such file or directory"),
        ([], "artifact=model.rdsl: must be an artifact of recbole_dsl, but its header is no JSON"),
    ],
)
def test_what_cannot_be_served_ends_the_command_with_one_line(options, line, capsys):
    from recbole_dsl.cli import main

    make().write("model.rdsl")
    if not options:
        content = Path("model.rdsl").read_bytes()
        Path("model.rdsl").write_bytes(content.replace(b'{\\"', b'x\\"', 1))
    with pytest.raises(SystemExit) as ended:
        main(["serve", "model.rdsl", *options])
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"recbole-dsl serve: {line}\n"


def test_a_port_that_is_taken_ends_the_command_with_one_line(capsys):
    from recbole_dsl.cli import main

    make().write("model.rdsl")
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(SystemExit) as ended:
        main(["serve", "model.rdsl", f"--port={other.getsockname()[1]}"])
    assert ended.value.code == 2
    assert "must be free on 127.0.0.1, and cannot be opened: Address already in use" in capsys.readouterr().err
