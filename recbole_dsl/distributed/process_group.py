"""Joining the processes that train one model, and leaving them: gloo on CPUs, NCCL on GPUs."""

import datetime
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from recbole_dsl import errors
from recbole_dsl.distributed.process_watch import Watch, end_quietly
from recbole_dsl.errors import TRACEBACK, DSLError, Terminated, refusal, shown

# seconds that a process may not answer, without the option process_timeout
TIMEOUT = 600.0
_UNTIL_SAID = 10.0
# what torchrun tells each process that it starts
_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")

_watch: Watch | None = None
# whether the launch that started this process holds the store at which all meet
_is_hosted = False


@dataclass(frozen=True)
class Place:
    """Where one process stands among those that train a model.

    Attributes:
        rank: from 0 to ``world_size`` - 1.
        local_rank: its number on its machine.
        address: where all meet, a host and a port.
        timeout: seconds that a process may not answer before the others end.
    """

    rank: int
    local_rank: int
    world_size: int
    address: tuple[str, int]
    timeout: float


def torchrun_options(environment: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """RecBole's options of one of several processes, as torchrun's variables say them; empty without it."""
    if not all(name in environment for name in _TORCHRUN):
        return {}
    numbers = {}
    for name in _TORCHRUN:
        if name != "MASTER_ADDR":
            if not environment[name].isdecimal():
                raise refusal(name, environment[name], "an integer >= 0, as torchrun sets it")
            numbers[name] = int(environment[name])
    return {
        "local_rank": numbers["LOCAL_RANK"],
        "nproc": numbers["LOCAL_WORLD_SIZE"],
        "world_size": numbers["WORLD_SIZE"],
        "offset": numbers["RANK"] - numbers["LOCAL_RANK"],
        "ip": environment["MASTER_ADDR"],
        "port": str(numbers["MASTER_PORT"]),
    }


def is_hosted_by_launch() -> None:
    """Note that the launch which started this process holds the store at which all meet."""
    global _is_hosted
    _is_hosted = True


def join(place: Place, device: torch.device) -> None:
    """Meet the other processes, and watch from now on whether they answer; once in a process.

    Raises:
        DSLError: if they do not come within the time limit, naming those that are missing.
    """
    global _watch
    if dist.is_initialized():
        return
    host, port = place.address
    limit = datetime.timedelta(seconds=place.timeout)
    holds_store = place.rank == 0 and not _is_hosted and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    store = store_at(host, port, holds_store, place.timeout)
    _await_all(store, place)
    watch = Watch(store_at(host, port, False, place.timeout), place.rank, place.world_size, place.timeout)
    watch.is_hosted, watch.local_rank = _is_hosted, place.local_rank
    _watch = watch
    watch.start()
    # what the processes say to each other about names and metrics is on the CPU
    backend = "gloo" if device.type == "cpu" else "cpu:gloo,cuda:nccl"
    with told_to_others():
        dist.init_process_group(
            backend,
            store=dist.PrefixStore("group", store),
            rank=place.rank,
            world_size=place.world_size,
            timeout=limit,
        )


def leave() -> None:
    """Part from the other processes, when all have done what they had to do."""
    global _watch
    if dist.is_initialized():
        dist.barrier()
        if _watch is not None:
            _watch.stop()
        dist.destroy_process_group()
    _watch = None


@contextmanager
def told_to_others() -> Iterator[None]:
    """Tell the other processes of an error within, so that they end; end here when one of them is lost.

    Raises:
        DSLError: for an error of another process, with the number of that process.
    """
    try:
        yield
    except BaseException as error:
        watch = _watch
        if watch is None and isinstance(error, DSLError) and torchrun_options().get("local_rank"):
            # what is wrong for all is said by the first, which torchrun ends as soon as another has ended
            time.sleep(_UNTIL_SAID)
            end_quietly()
        if watch is None or watch.has_ended:
            raise
        if isinstance(error, KeyboardInterrupt):
            if isinstance(error, Terminated):
                # torchrun asks the others to end when it has lost one
                watch.suspect()
                time.sleep(1.5 * watch.limit)
            watch.failed("was asked to end, by SIGINT or SIGTERM")
            raise
        is_of_connection = isinstance(error, dist.DistError)
        if is_of_connection or type(error) is RuntimeError:
            # gloo has no type of its own. If somebody else is the cause, the watch ends this process by then
            watch.suspect()
            time.sleep(3 * watch.limit)
        if is_of_connection:
            watch.failed("lost the others, who answer all the same")
            raise DSLError(f"a connection to the other processes broke: {described(error)}") from error
        watch.failed(described(error))
        raise


def store_at(host: str, port: int, holds: bool, timeout: float) -> dist.Store:
    """The store at ``host:port``, held by this process or by another.

    Raises:
        DSLError: if the port is taken, or nobody holds a store there within ``timeout`` seconds.
    """
    limit = datetime.timedelta(seconds=timeout)
    try:
        store = dist.TCPStore(host, port, is_master=holds, timeout=limit, wait_for_workers=False)
    except (RuntimeError, ValueError) as error:
        if holds:
            raise DSLError(
                f"port={port}: must be a free port of this machine; another run has it, or it is not allowed"
            ) from error
        raise DSLError(
            f"ip={shown(host)}, port={port}: must be where the launch with group_offset=0 waits; nobody "
            f"answered in {timeout:g} seconds"
        ) from error
    # torchrun starts all again where it may, and keeps its store
    return dist.PrefixStore(f"recbole_dsl/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)


def _await_all(store: dist.Store, place: Place) -> None:
    store.set(f"came/{place.rank}", b"1")
    until = time.monotonic() + place.timeout
    missing = list(range(place.world_size))
    while missing:
        missing = [rank for rank in missing if not store.check([f"came/{rank}"])]
        if missing and time.monotonic() > until:
            who = ", ".join(map(str, missing[:10]))
            raise DSLError(
                f"world_size={place.world_size}: process {who} did not come within process_timeout="
                f"{place.timeout:g} seconds"
            )
        if missing:
            time.sleep(0.05)


def described(error: BaseException) -> str:
    """One line about ``error``."""
    if isinstance(error, DSLError):
        return str(error)
    return f"{errors.described(error)} ({TRACEBACK}=1 shows where)"
