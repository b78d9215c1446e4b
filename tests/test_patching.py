import os
import sys
import threading
import types

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recbole_dsl.patching import PATCHES, Patch


@pytest.fixture(autouse=True)
def owner(monkeypatch):
    module = types.ModuleType("owner")
    module.name = lambda: "usual"
    monkeypatch.setitem(sys.modules, "owner", module)
    return module


PATCH = Patch("owner", "name", "to try it")


def test_each_has_a_name_and_a_reason():
    assert all(patch.module and patch.name and patch.reason for patch in PATCHES)
    assert len({(patch.module, patch.name) for patch in PATCHES}) == len(PATCHES)


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
