"""Processes that the command, torchrun and several launches start; and what becomes of them when one is lost."""

import re
import signal
import sys
import time
from glob import glob
from pathlib import Path

import psutil
import pytest

from tests.training.process_runs import children_of, free_port, start, wait_for

LOSING = Path(__file__).parent / "losing.py"


@pytest.fixture
def command(data_path):
    return {
        "model": "BPR", "dataset": "tiny", "data_path": data_path, "epochs": 2, "train_batch_size": 128,
        "embedding_size": 8, "update_interval": 3, "show_progress": False, "use_gpu": False,
        "process_timeout": 100,
    }  # fmt: skip


def ended(process, code=0, seconds=400):
    out, err = process.communicate(timeout=seconds)
    assert process.returncode == code, err[-3000:]
    return out, re.sub(r"\x1b\[[0-9;]*m", "", err)


def check_one_run(*errors):
    """It was trained, saved and tested once, whoever started it."""
    assert sum(text.count("\ntest ") for text in errors) == 1
    assert [len(glob(f"{folder}/*")) for folder in ("saved/", "log/BPR", "log_tensorboard")] == [2, 1, 1]


def test_nproc_trains_saves_and_tests_once(command):
    process = start(options=command | {"nproc": 2, "port": free_port()})
    check_one_run(ended(process)[1])


def test_torchrun_trains_saves_and_tests_once(command):
    torchrun = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc_per_node=2",
        f"--master_port={free_port()}",
    ]
    check_one_run(ended(start(options=command, program=torchrun))[1])


def test_two_launches_find_each_other_by_address_and_port(command):
    several = {**command, "nproc": 1, "world_size": 2, "ip": "127.0.0.1", "port": free_port()}
    second = start(options=several | {"group_offset": 1})
    first = start(options=several | {"group_offset": 0})
    check_one_run(ended(first)[1], ended(second)[1])


@pytest.mark.parametrize("number, rank", [(signal.SIGKILL, 0), (signal.SIGSTOP, 1)])
def test_a_lost_process_ends_the_other_with_one_line_that_names_it(command, number, rank):
    limit = 12
    process = start(options=command | {"epochs": 5000, "nproc": 2, "port": free_port(), "process_timeout": limit})
    try:
        wait_for(lambda: process.poll() is not None or glob("saved/*.last"))
        both = children_of(process, 2)
        time.sleep(1)
        both[rank].send_signal(number)
        check_lost(process, both, rank, number, limit)
    finally:
        process.kill()


@pytest.mark.by_hand
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("phase", ["saving", "evaluating"])
def test_a_process_lost_while_it_saves_or_evaluates_leaves_a_state_to_go_on_from(command, number, rank, phase):
    limit = 12
    options = command | {"epochs": 9, "nproc": 2, "port": free_port(), "process_timeout": limit}
    process = start(options=options, script=LOSING, LOST=f"{phase} {rank} {int(number)}")
    try:
        wait_for(lambda: process.poll() is not None or len(psutil.Process(process.pid).children()) > 1)
        both = children_of(process, 2)
        check_lost(process, both, rank, number, limit)
    finally:
        process.kill()
    (state,) = glob("saved/*.last")
    for nproc in (1, 2):
        again = Path(state).read_bytes()
        port = {} if nproc == 1 else {"port": free_port()}
        _, err = ended(start(options={"resume": state, "nproc": nproc, "process_timeout": 100, **port}))
        assert err.count("\ntest ") == 1
        Path(state).write_bytes(again)


def check_lost(process, both, rank, number, limit):
    """The other process ends in time, with one line that names the lost one."""
    wait_for(lambda: not both[rank].is_running() or both[rank].status() in ("zombie", "stopped"))
    began = time.monotonic()
    _, err = ended(process, code=2)
    assert time.monotonic() - began < 4 * limit
    how = "was ended by SIGKILL" if number == signal.SIGKILL else "is dead or hangs"
    lines = [line for line in err.splitlines() if " INFO " not in line and re.search(r"process \d|Error", line)]
    (line,) = lines
    assert re.match(rf"run_recbole_dsl: process {rank} .*{how}", line)
    assert not any(p.is_running() and p.status() != "zombie" for p in both)
