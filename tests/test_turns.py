import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from recbole_dsl import DSLError, turns
from recbole_dsl.turns import give_way, refuse_to_seed, training, turn


@pytest.fixture
def elsewhere():
    """Runs a function in another thread."""
    with ThreadPoolExecutor(1) as pool:
        yield lambda function: pool.submit(function).result(timeout=20)


def use(context):
    with context:
        return "had it"


def test_a_second_training_is_refused_in_one_line(elsewhere):
    with training("BPR"):
        with pytest.raises(
            DSLError, match=r"^NeuMF: must be trained in a process of its own, .* trains BPR .*nproc"
        ):
            elsewhere(lambda: use(training("NeuMF")))
        with pytest.raises(DSLError, match="would share random numbers"):
            elsewhere(refuse_to_seed)
        # one within the other, in one thread, as a callback may
        assert use(training("NeuMF")) == use(turn()) == "had it"
        refuse_to_seed()
    assert elsewhere(lambda: use(training("NeuMF"))) == "had it"


def test_who_waits_gets_a_turn_between_two_steps_and_leaves_the_state():
    state, had = [0], []

    def wait():
        with turn():
            refuse_to_seed()
            state[0] = "of another"
            had.append(state[0])
            with pytest.raises(DSLError, match="trains BPR"), training("NeuMF"):
                pass

    with training("BPR"):
        thread = threading.Thread(target=wait)
        thread.start()
        while not had:
            state[0] += 1
            before = state[0]
            give_way(lambda: state[0], lambda kept: state.__setitem__(0, kept))
            assert state[0] == before
        thread.join()
    assert had == ["of another"]


def test_a_training_that_never_gives_way_is_named(elsewhere, monkeypatch):
    monkeypatch.setattr(turns, "_PATIENCE", 0.0)
    monkeypatch.setattr(turns, "_POLL", 0.01)
    with training("BPR"), pytest.raises(DSLError, match="another thread trains BPR, and gave no turn"):
        elsewhere(lambda: use(turn()))


def test_a_thread_that_ended_holds_nothing(elsewhere):
    left = []

    def leave():
        context = training("BPR")
        context.__enter__()
        left.append(context)

    thread = threading.Thread(target=leave)
    thread.start()
    thread.join()
    assert elsewhere(lambda: use(training("NeuMF"))) == "had it"


@pytest.mark.parametrize("error", [KeyboardInterrupt, GeneratorExit, SystemExit])
def test_an_interrupted_training_holds_nothing(elsewhere, error):
    with pytest.raises(error), training("BPR"):
        raise error
    assert elsewhere(lambda: use(training("NeuMF"))) == "had it"


def test_a_generator_that_is_dropped_holds_nothing(elsewhere):
    def generator():
        with training("BPR"):
            yield

    left = generator()
    next(left)
    elsewhere(left.close)
    assert elsewhere(lambda: use(training("NeuMF"))) == "had it"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_process_may_train(elsewhere):
    def fork():
        child = os.fork()
        if child == 0:
            os._exit(0 if use(training("NeuMF")) == use(turn()) == "had it" else 1)
        return os.waitpid(child, 0)[1]

    with training("BPR"):
        assert elsewhere(fork) == 0
        assert fork() == 0
