"""The recommender that a service answers from, and how a newer file takes its place."""

import hashlib
import json
import logging
import os
import signal
import threading
from dataclasses import dataclass

from recbole_dsl.errors import described
from recbole_dsl.service import metrics
from recbole_dsl.serving.recommender import Recommender
from recbole_dsl.serving.requests import read_new_items

LOGGER = logging.getLogger(__name__)
# hexadecimal digits of an artifact's checksum that an answer says
_DIGITS = 12

# device, inode, size and time of the last change of each file; None for one that is not there
_Stamp = tuple[tuple[int, int, int, int] | None, ...]


@dataclass(frozen=True)
class Loaded:
    """A recommender that is ready, and the digest of what it was loaded from."""

    recommender: Recommender
    digest: str


def load(artifact: str, new_items: str | None = None) -> Loaded:
    """What the files hold, checked and not yet prepared.

    Args:
        new_items: a file of items to fold in. What it cannot fold in any more is skipped, as an item that a newer
            artifact was trained on.

    Raises:
        DSLError: if a file is missing or damaged.
    """
    recommender = Recommender.load(artifact)
    checksum = recommender.header["checksum"]
    if new_items is not None:
        items = read_new_items(new_items)
        recommender = recommender.with_items(items, errors="ignore")
        checksum = hashlib.sha256(json.dumps([checksum, items]).encode()).hexdigest()
    return Loaded(recommender, checksum[:_DIGITS])


class Live:
    """Watches an artifact, and holds the recommender of its last whole version.

    A request reads ``current`` once, so that all of its answer comes from one version.

    Attributes:
        current: None until the first version is prepared.
    """

    def __init__(self, artifact: str, new_items: str | None = None, interval: float = 1.0):
        self.current: Loaded | None = None
        self._artifact, self._new_items, self._interval = artifact, new_items, interval
        # the files when they were last looked at, and when they were last loaded
        self._seen: _Stamp | None = None
        self._tried: _Stamp | None = None
        self._stop = threading.Event()

    def start(self) -> None:
        """Load the files in the background, and again whenever they have changed."""
        threading.Thread(target=self._watch, args=(os.getppid(),), name="artifact", daemon=True).start()

    def stop(self) -> None:
        """Watch the files no longer."""
        self._stop.set()

    def poll(self) -> None:
        """Load the files if they have changed and are as they were at the last look, so written to the end."""
        stamp, before = self._stamp(), self._seen
        self._seen = stamp
        if stamp == self._tried or (stamp != before and self.current is not None):
            return
        self._tried = stamp
        try:
            loaded = load(self._artifact, self._new_items)
            loaded.recommender.prepare()
        # whatever is wrong with the new file, the old one goes on
        except Exception as error:
            goes_on = f"{self.current.digest} goes on" if self.current else "nothing to answer from yet"
            LOGGER.error("%s; %s", described(error), goes_on)
            metrics.LOADS.labels("failed").inc()
            return
        self.current = loaded
        recommender = loaded.recommender
        LOGGER.info(
            "%s: %s, %s on %s, %s users, %s items",
            self._artifact, loaded.digest, recommender.header["model"], recommender.header["dataset"],
            f"{len(recommender.users):,}", f"{len(recommender.items):,}",
        )  # fmt: skip
        metrics.LOADS.labels("loaded").inc()
        metrics.LOADED_AT.set_to_current_time()

    def _watch(self, parent: int) -> None:
        while True:
            self.poll()
            if self._stop.wait(self._interval):
                return
            # a worker whose supervisor was killed would hold the port for ever
            if os.getppid() != parent:
                os.kill(os.getpid(), signal.SIGTERM)

    def _stamp(self) -> _Stamp:
        return tuple(_stamp(path) for path in (self._artifact, self._new_items) if path is not None)


def _stamp(path: str) -> tuple[int, int, int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
