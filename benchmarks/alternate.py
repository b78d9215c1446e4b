"""Time several sides in one process, in turns, so that the machine's moods fall on all of them alike."""

import gc
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class Times:
    """The seconds that one side took, round by round."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return median(self.seconds)

    @property
    def low(self) -> float:
        return min(self.seconds)

    @property
    def high(self) -> float:
        return max(self.seconds)


def alternate(sides: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, Times]:
    """Run every side once per round, A B A B ..., after one round that warms up and does not count.

    Args:
        sides: name -> a function that does the work and returns the seconds that count.
        rounds: rounds that count, at least 1.
    """
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    # what is there by now is not garbage, and takes long to go through: RecBole keeps a set for each user
    gc.collect()
    gc.freeze()
    try:
        for _ in range(rounds + 1):
            for name, run in sides.items():
                # no side pays for what another left behind
                gc.collect()
                seconds[name].append(run())
    finally:
        gc.unfreeze()
    return {name: Times(tuple(all_rounds[1:])) for name, all_rounds in seconds.items()}


def time_cells(times: Times, reference: Times | None, unit: float = 1e-3, digits: int = 2) -> list[str]:
    """Table cells of one side: median and range in ``unit`` seconds, and how often it fits into the reference."""
    shown = [f"{seconds / unit:,.{digits}f}" for seconds in (times.median, times.low, times.high)]
    ratio = "-" if reference is None else f"{reference.median / times.median:.2f} x"
    return [shown[0], f"{shown[1]} - {shown[2]}", ratio]
