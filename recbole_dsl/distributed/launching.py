"""Start the processes of one launch, wait for them, and say in one line why they failed."""

import contextlib
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from multiprocessing import connection
from typing import Any

import torch.distributed as dist
from tqdm import tqdm

from recbole_dsl.distributed.heartbeat import REASON
from recbole_dsl.distributed.process_group import is_hosted_by_launch, store_at
from recbole_dsl.errors import TRACEBACK, DSLError, described, quieten, refusal
from recbole_dsl.patching import changes, lock, variable

# seconds that processes have to end by themselves
_GRACE = 10.0
_POLL = 0.3
_UNTIL_READ = 3.0
# the exit code of a process that calls `launch` while it imports the script
_UNGUARDED = 78
_THREADS = variable(
    "OMP_NUM_THREADS", "new processes share the cores of the machine, unless the user says otherwise"
)


def launch(work: Callable[..., Any], arguments: tuple, options: Mapping[str, Any], timeout: float) -> Any:
    """Run ``work(*arguments, {**options, "local_rank": n})`` in ``options["nproc"]`` new processes.

    The launch with offset 0 holds the store at ``ip`` and ``port`` at which the processes of all launches meet.
    When one ends with an error, is killed, or does not answer, all of them end, here and in the other launches.

    Args:
        options: RecBole's, of several processes: nproc, world_size, offset, ip, port.
        timeout: seconds to wait for the store.

    Returns:
        What the first process of this launch returned.

    Raises:
        DSLError: with the reason for which they ended.
    """
    script = getattr(sys.modules["__main__"], "__file__", None)
    if script is not None and not os.path.exists(script):
        raise refusal(
            "nproc", options["nproc"], "1 in a script that is no file, as each process imports the script"
        )
    context = multiprocessing.get_context("spawn")
    store = store_at(options["ip"], int(options["port"]), options["offset"] == 0, timeout)
    receiver, sender = context.Pipe(duplex=False)
    processes = []
    # the user may have said how many threads
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, (os.cpu_count() or 1) // options["nproc"]))
    with lock(), _THREADS.by(threads):
        for local_rank in range(options["nproc"]):
            of_one = {**options, "local_rank": local_rank}
            on_stderr = sys.stdout is sys.stderr
            process = context.Process(target=_work, args=(work, arguments, of_one, sender, on_stderr))
            process.start()
            processes.append(process)
    sender.close()
    results: list[Any] = []
    notes: list[str] = []
    try:
        _await(processes, receiver, store, options["offset"], results, notes)
    except KeyboardInterrupt as interrupt:
        _end(processes, signal.SIGTERM)
        _receive(receiver, results, notes)
        for note in notes[:1]:
            interrupt.add_note(note)
        raise
    except DSLError:
        if options["offset"] == 0 and options["world_size"] > options["nproc"]:
            # the other launches read the reason in the store, which is gone with this process
            time.sleep(_UNTIL_READ)
        raise
    finally:
        _end(processes, signal.SIGKILL, 0 if not results else _GRACE)
    return results[0] if results else None


def refuse_in_import() -> None:
    """End this process if a launch started it and it is still importing the script; the launch says why."""
    # multiprocessing's own mark: it checks it itself, but only when a process is started
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        sys.exit(_UNGUARDED)


def _await(processes: list, receiver: Any, store: dist.Store, offset: int, results: list, notes: list) -> None:
    """Wait for ``processes`` to end well; a DSLError says why they did not."""
    waiting = set(range(len(processes)))
    while waiting:
        # children of a killed process may keep its sentinel open
        connection.wait([processes[n].sentinel for n in waiting], timeout=_POLL)
        _receive(receiver, results, notes)
        for local_rank in [n for n in waiting if processes[n].exitcode is not None]:
            waiting.remove(local_rank)
            code = processes[local_rank].exitcode
            if code:
                _receive(receiver, results, notes)
                how = _how_it_ended(offset + local_rank, code)
                said = _noted(store, notes[0] if code == 2 and notes else how)
                # of a killed process the others only noted that it does not answer
                raise DSLError(how if code < 0 else said)
        reason = _reason(store)
        if reason:
            raise DSLError(reason)
    _receive(receiver, results, notes)


def _receive(receiver: Any, results: list, notes: list) -> None:
    with contextlib.suppress(OSError):
        while receiver.poll():
            try:
                kind, content = receiver.recv()
            except EOFError:
                receiver.close()
                return
            (results if kind == "result" else notes).append(content)


def _reason(store: dist.Store) -> str | None:
    try:
        return store.get(REASON).decode() if store.check([REASON]) else None
    except RuntimeError:
        # the launch that holds the store has ended; the processes here say themselves why they end
        return None


def _noted(store: dist.Store, reason: str) -> str:
    with contextlib.suppress(RuntimeError):
        return store.compare_set(REASON, "", reason).decode()
    return reason


def _how_it_ended(rank: int, code: int) -> str:
    if code == _UNGUARDED:
        return 'nproc: must be given under `if __name__ == "__main__":`, as each process imports the script'
    if code > 0:
        return f"process {rank} ended with exit code {code}, and the others with it"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    return f"process {rank} was ended by {name}, and the others with it; --resume goes on from the last epoch"


def _end(processes: list, number: int, grace: float = _GRACE) -> None:
    """Send ``number`` to the processes that run, and SIGKILL to those that still run after ``grace`` seconds."""
    if number != signal.SIGKILL:
        for process in processes:
            if process.is_alive():
                os.kill(process.pid, number)
    until = time.monotonic() + grace
    for process in processes:
        process.join(max(0.0, until - time.monotonic()))
        if process.is_alive():
            process.kill()
            process.join()


@changes(
    "tqdm's lock",
    "the usual one is shared by processes, and leaks as this one ends by os._exit",
    "the process ends",
)
@changes("sys.stdout", "what the processes print goes where the launch prints", "the process ends")
@changes("signal.SIGTERM", "a process that is asked to end saves where it is, as after Ctrl-C", "the process ends")
def _work(
    work: Callable[..., Any], arguments: tuple, options: dict[str, Any], sender: Any, on_stderr: bool
) -> None:
    quieten()
    if on_stderr:
        sys.stdout = sys.stderr
    tqdm.set_lock(threading.RLock())
    is_hosted_by_launch()
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        result = work(*arguments, options)
    except KeyboardInterrupt as interrupt:
        for note in getattr(interrupt, "__notes__", ()):
            sender.send(("note", note))
        # the exit code that a shell gives after SIGINT
        os._exit(128 + signal.SIGINT)
    except Exception as error:
        if os.environ.get(TRACEBACK):
            raise
        # the launch says it
        sender.send(("note", described(error, with_hint=True)))
        os._exit(2)
    if options["local_rank"] == 0:
        sender.send(("result", result))
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        # pythonw has none
        if stream is not None:
            stream.flush()
    # threads of a destroyed process group may abort a process while it exits
    os._exit(0)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
