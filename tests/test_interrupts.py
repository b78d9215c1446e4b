"""Ctrl-C and SIGTERM wait while C++ calls Python, and are never lost or taken for another error."""

import signal
import threading

import pytest
import torch

from recbole_dsl.checkpoint.archive import damage, write_archive
from recbole_dsl.errors import Terminated
from recbole_dsl.interrupts import held_interrupts


@pytest.fixture(autouse=True)
def terminating():
    def terminate(*_):
        raise Terminated

    before = signal.signal(signal.SIGTERM, terminate), signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGTERM, before[0])
    signal.signal(signal.SIGINT, before[1])


class Interrupted:
    """A file, while whose n-th piece is written a signal comes."""

    def __init__(self, file, number, at):
        self.file, self.number, self.left = file, number, at

    def write(self, piece):
        self.left -= 1
        if self.left == 0:
            signal.raise_signal(self.number)
        return self.file.write(piece)

    def __getattr__(self, name):
        return getattr(self.file, name)


@pytest.mark.parametrize(
    "number, expected",
    [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)],
    ids=["Ctrl-C", "SIGTERM"],
)
@pytest.mark.parametrize("at", [1, 2, 5, 9, 14])
def test_a_signal_while_an_archive_is_written_is_itself(number, expected, at):
    content = {f"tensor {i}": torch.arange(50) for i in range(5)}
    write_archive("file.pth", lambda file: torch.save(content, file))
    with pytest.raises(expected) as raised:
        write_archive("file.pth", lambda file: torch.save({}, Interrupted(file, number, at)))
    assert type(raised.value) is expected
    assert damage("file.pth") is None and list(torch.load("file.pth")) == list(content)


def test_what_was_begun_is_done_and_then_the_signal_comes():
    done = []
    with pytest.raises(KeyboardInterrupt), held_interrupts():
        signal.raise_signal(signal.SIGINT)
        done.append(1)
    assert done
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_an_error_does_not_hide_the_signal():
    with pytest.raises(KeyboardInterrupt), held_interrupts():
        signal.raise_signal(signal.SIGINT)
        raise ValueError


def test_what_is_ignored_stays_so():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with held_interrupts():
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_in_another_thread_nothing_is_set():
    def work():
        with held_interrupts():
            found.append(signal.getsignal(signal.SIGINT))

    found = []
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [signal.default_int_handler]
