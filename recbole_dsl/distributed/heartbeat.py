"""Notice that a process is dead or hangs, and end the others with one line that names it."""

import contextlib
import multiprocessing
import os
import sys
import threading
import time

import torch.distributed as dist

# the store's key for why the processes end, which the first to notice sets
REASON = "reason"
_LEFT = b"left"
# seconds that a process may be silent once a connection has broken
_SUSPICION = 3.0


class Heartbeat(threading.Thread):
    """Sends heartbeats of this process through the store, and listens for those of the others.

    A process that is stopped or dead sends none. When one has been silent for ``limit`` seconds, the others note
    it in the store and end at once, whatever their main thread waits for.

    Attributes:
        limit: seconds.
        is_hosted: whether a launch started this process and says the reason, so that it need not.
        local_rank: its number on its machine, by which one of several is chosen to say it.
    """

    def __init__(self, store: dist.Store, rank: int, world_size: int, limit: float):
        super().__init__(daemon=True, name="heartbeat")
        self.limit = limit
        self.is_hosted, self.local_rank = False, 0
        self._store, self._rank, self._world_size = store, rank, world_size
        self._interval = min(1.0, limit / 10)
        self._stopped = threading.Event()
        self._beat = 0
        self._say(b"0")

    def run(self) -> None:
        others = [rank for rank in range(self._world_size) if rank != self._rank]
        last = dict.fromkeys(others, b"")
        silent = dict.fromkeys(others, 0.0)
        before = time.monotonic()
        while not self._stopped.wait(self._interval):
            parent = multiprocessing.parent_process()
            if self.is_hosted and parent is not None and not parent.is_alive():
                end_quietly()
            try:
                self._beat += 1
                self._say(str(self._beat).encode())
                if self._store.check([REASON]) and not self._stopped.wait(_SUSPICION):
                    # the main thread has not ended by itself
                    self._end(self._store.get(REASON).decode())
                beats = {r: self._store.get(_key(r)) for r in others if self._store.check([_key(r)])}
            except RuntimeError:
                self._lost_store()
                return
            # at most two rounds count: all processes may have been stopped together, and continued
            now = time.monotonic()
            passed, before = min(now - before, 2 * self._interval), now
            for rank, beat in beats.items():
                if beat != last[rank] or beat == _LEFT:
                    last[rank], silent[rank] = beat, 0.0
                else:
                    silent[rank] += passed
                if silent[rank] >= self.limit:
                    self.lost(rank, silent[rank])

    @property
    def has_ended(self) -> bool:
        """Whether this process is about to end and watches no longer."""
        return self._stopped.is_set()

    def suspect(self) -> None:
        """Wait only seconds for a silent process from now on: a connection has broken."""
        self.limit = min(self.limit, max(_SUSPICION, 3 * self._interval))

    def lost(self, rank: int, seconds: float) -> None:
        """End, since ``rank`` has not answered for ``seconds``."""
        self._end(
            f"process {rank} of {self._world_size} is dead or hangs: it has not answered for {seconds:.0f} "
            "seconds; the others end too, and --resume goes on from the last epoch"
        )

    def failed(self, text: str) -> None:
        """Tell the others that this process ends with an error; end it here unless it is the one to say so."""
        is_first = True
        if self.has_ended:
            return
        with contextlib.suppress(RuntimeError):
            self._store.compare_set(REASON, "", f"process {self._rank}: {text}")
            is_first = self._is_first_to_say()
        self.stop()
        if not (is_first or self.is_hosted):
            end_quietly()

    def stop(self) -> None:
        """Stop watching, and let the others expect no more heartbeats."""
        self._stopped.set()
        with contextlib.suppress(RuntimeError):
            self._say(_LEFT)

    def _is_first_to_say(self) -> bool:
        """Whether no other process of this machine has said why they end."""
        return self._store.add(f"said/{self._rank - self.local_rank}", 1) == 1

    def _say(self, beat: bytes) -> None:
        self._store.set(_key(self._rank), beat)

    def _lost_store(self) -> None:
        # all may be about to leave, and the one that holds the store is gone first
        if self._stopped.wait(2 * self._interval + 1):
            return
        text = "the process that holds the meeting point (ip, port) is dead or hangs, and the others end too"
        self._end(text, may_ask=False)

    def _end(self, reason: str, may_ask: bool = True) -> None:
        if self._stopped.is_set():
            return
        is_first = self.local_rank <= 1
        if may_ask:
            with contextlib.suppress(RuntimeError):
                self._store.compare_set(REASON, "", reason)
                reason = self._store.get(REASON).decode()
                is_first = self._is_first_to_say()
        end_quietly("" if self.is_hosted or not is_first else reason)


def end_quietly(reason: str = "") -> None:
    """End this process at once with exit code 2; print ``reason``, if any."""
    if reason:
        print(f"recbole-dsl: {reason}", file=sys.stderr, flush=True)
    # the main thread may wait for a process that never answers
    os._exit(2)


def _key(rank: int) -> str:
    return f"beat/{rank}"
