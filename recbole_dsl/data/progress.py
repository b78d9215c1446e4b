"""Progress bars of the parts of a run without epochs: reading, splitting, factorising."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread

from recbole.config import Config
from tqdm import tqdm

from recbole_dsl.distributed.agreement import is_first

# seconds after which a bar appears, and between two updates of it
_DELAY, _EVERY = 2.0, 0.5


@contextmanager
def progress(name: str, total: int, config: Config, unit: str = "step") -> Iterator[tqdm]:
    """A bar of ``total`` steps or bytes, shown from the third second on, unless ``show_progress`` is False."""
    with tqdm(
        total=total,
        desc=f"{name:>20}",
        unit=unit,
        unit_scale=unit == "B",
        delay=_DELAY,
        leave=False,
        dynamic_ncols=True,
        # None: only on a terminal
        disable=None if config["show_progress"] and is_first(config) else True,
    ) as bar:
        over = Event()
        if not bar.disable:
            # a step may take a minute
            Thread(target=_draw, args=(bar, over), daemon=True).start()
        try:
            yield bar
        finally:
            over.set()


def _draw(bar: tqdm, over: Event) -> None:
    wait = _DELAY
    while not over.wait(wait):
        bar.refresh()
        wait = _EVERY
