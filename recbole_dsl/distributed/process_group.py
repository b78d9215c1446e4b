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

from recbole_dsl.distributed.heartbeat import Heartbeat, end_quietly
from recbole_dsl.errors import DSLError, Terminated, described, refusal, shown

# the default of the option process_timeout: seconds that a process may not answer
TIMEOUT = 600.0
_UNTIL_SAID = 10.0
# what torchrun tells each process that it starts
_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")

_heartbeat: Heartbeat | None = None
# whether `launch` started this process, and holds the store
_is_hosted = False


@dataclass(frozen=True)
class Place:
    """The rank of one process, and where it meets the others.

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
    """Note that `launch` started this process, and holds the store at which all meet."""
    global _is_hosted
    _is_hosted = True


def join(place: Place, device: torch.device) -> None:
    """Meet the other processes, and watch from now on whether they answer; once in a process.

    Raises:
        DSLError: if they do not come within the time limit, naming those that are missing.
    """
    global _heartbeat
    if dist.is_initialized():
        return
    host, port = place.address
    limit = datetime.timedelta(seconds=place.timeout)
    holds_store = place.rank == 0 and not _is_hosted and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    store = store_at(host, port, holds_store, place.timeout)
    _await_all(store, place)
    heartbeat = Heartbeat(store_at(host, port, False, place.timeout), place.rank, place.world_size, place.timeout)
    heartbeat.is_hosted, heartbeat.local_rank = _is_hosted, place.local_rank
    _heartbeat = heartbeat
    heartbeat.start()
    # names and metrics are exchanged on the CPU
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
    """Leave the process group once all processes get here."""
    global _heartbeat
    if dist.is_initialized():
        dist.barrier()
        if _heartbeat is not None:
            _heartbeat.stop()
        dist.destroy_process_group()
    _heartbeat = None


@contextmanager
def told_to_others() -> Iterator[None]:
    """Tell the other processes of an error within, so that they end; end here when one of them is lost.

    Raises:
        DSLError: for an error of another process, with the number of that process.
    """
    try:
        yield
    except BaseException as error:
        heartbeat = _heartbeat
        if heartbeat is None and isinstance(error, DSLError) and torchrun_options().get("local_rank"):
            # the first process says what is wrong for all, and torchrun ends it as soon as another has ended
            time.sleep(_UNTIL_SAID)
            end_quietly()
        if heartbeat is None or heartbeat.has_ended:
            raise
        if isinstance(error, KeyboardInterrupt):
            if isinstance(error, Terminated):
                # torchrun asks the others to end when it has lost one
                heartbeat.suspect()
                time.sleep(1.5 * heartbeat.limit)
            heartbeat.failed("was asked to end, by SIGINT or SIGTERM")
            raise
        is_of_connection = isinstance(error, dist.DistError)
        if is_of_connection or type(error) is RuntimeError:
            # gloo has no type of its own. If another process is the cause, the heartbeat ends this one by then
            heartbeat.suspect()
            time.sleep(3 * heartbeat.limit)
        if is_of_connection:
            heartbeat.failed("lost the others, who answer all the same")
            raise DSLError(
                f"a connection to the other processes broke: {described(error, with_hint=True)}"
            ) from error
        heartbeat.failed(described(error, with_hint=True))
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
    # torchrun may start all processes again, and keeps its store
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
