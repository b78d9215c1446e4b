"""Turns of threads at the random generators of the process, which RecBole's trainings share.

One thread at a time trains. Whatever else draws or seeds (loading, exporting, some serving) waits for its turn. A
training thread gives way between two steps, and goes on with the numbers that it would have drawn.
"""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any

from recbole_dsl.errors import DSLError
from recbole_dsl.patching import changes

# seconds to wait for a training that makes no step, as while it reads data
_PATIENCE = 60.0
# seconds until a thread that ended without giving its turn back is noticed
_POLL = 1.0


class _Hold:
    def __init__(self, trains: str | None):
        self.thread, self.trains = threading.current_thread(), trains

    def is_of_another(self) -> bool:
        return self.thread is not threading.current_thread() and self.thread.is_alive()


class _Turns:
    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.holds: list[_Hold] = []
        # trainings that have given way
        self.paused: list[_Hold] = []
        self.n_waiting = self.n_taken = 0

    def take(self, hold: _Hold) -> None:
        until = monotonic() + _PATIENCE
        with self.changed:
            self.n_waiting += 1
            try:
                while others := [one for one in self.holds if one.is_of_another()]:
                    training = next((one.trains for one in others if one.trains), None)
                    if training and (hold.trains or monotonic() > until):
                        raise _refused(hold, training)
                    self.changed.wait(_POLL)
                for one in self.paused if hold.trains else ():
                    if one.is_of_another():
                        raise _refused(hold, one.trains)
                self.holds = [one for one in self.holds if one.thread.is_alive()] + [hold]
                self.n_taken += 1
            finally:
                self.n_waiting -= 1
                self.changed.notify_all()

    def give_back(self, hold: _Hold) -> None:
        with self.changed:
            for holds in (self.holds, self.paused):
                holds[:] = [one for one in holds if one is not hold]
            self.changed.notify_all()

    def give_way(self, save: Callable[[], Any], restore: Callable[[Any], None]) -> None:
        with self.changed:
            mine = [one for one in self.holds if one.thread is threading.current_thread()]
            if not self.n_waiting or not any(one.trains for one in mine):
                return
            state, n_taken = save(), self.n_taken
            self.holds = [one for one in self.holds if one not in mine]
            self.paused += mine
            self.changed.notify_all()
            try:
                while any(one.is_of_another() for one in self.holds) or (
                    self.n_waiting and self.n_taken == n_taken
                ):
                    self.changed.wait(_POLL)
            finally:
                self.paused = [one for one in self.paused if one not in mine]
                self.holds += mine
                restore(state)


_turns = _Turns()


@contextmanager
def training(what: str) -> Iterator[None]:
    """Within it, no other thread trains, and others draw only when this one gives way.

    Raises:
        DSLError: if another thread trains.
    """
    yield from _held(_Hold(what))


@contextmanager
@changes(
    "the random generators of Python, NumPy and PyTorch",
    "a training that goes on, an export and a report draw what RecBole would draw",
)
def turn() -> Iterator[None]:
    """Within it, no other thread draws; it begins when a training thread gives way.

    Raises:
        DSLError: if it does not for a minute.
    """
    yield from _held(_Hold(None))


def give_way(save: Callable[[], Any], restore: Callable[[Any], None]) -> None:
    """Let waiting threads have their turn, if this thread trains; called between two steps.

    Args:
        save: returns the state of everything that they may change, for ``restore`` afterwards.
    """
    if _turns.n_waiting:
        _turns.give_way(save, restore)


def refuse_to_seed() -> None:
    """Raise a DSLError if another thread trains: seeding would change the numbers that it draws."""
    with _turns.changed:
        if any(one.thread is threading.current_thread() for one in _turns.holds):
            return
        for one in (*_turns.holds, *_turns.paused):
            if one.trains and one.is_of_another():
                raise _refused(_Hold("a model of RecBole"), one.trains)


def _held(hold: _Hold) -> Iterator[None]:
    try:
        _turns.take(hold)
        yield
    finally:
        # looked up here, as a fork replaces it
        _turns.give_back(hold)


def _refused(hold: _Hold, training: str | None) -> DSLError:
    if hold.trains:
        return DSLError(
            f"{hold.trains}: must be trained in a process of its own, as another thread of this one trains "
            f"{training} and they would share random numbers: use nproc, subprocess, or recbole-dsl tune"
        )
    return DSLError(
        f"another thread trains {training}, and gave no turn for {_PATIENCE:.0f} s: load, export or evaluate in "
        "a process of its own"
    )


def _after_fork() -> None:
    # only the thread that forked lives on here, and gives back what it holds
    global _turns
    before, _turns = _turns, _Turns()
    _turns.holds = [one for one in before.holds if one.thread is threading.current_thread()]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
