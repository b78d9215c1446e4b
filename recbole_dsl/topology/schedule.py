"""How the update ratio falls over the training."""

import math

# defaults of the option update_ratio: the second where every epoch has an update
FIRST_RATIO, FIRST_RATIO_OF_EPOCHS = 0.1, 0.5
FINAL_RATIO = 0.005


def update_ratio(schedule: str, first: float, progress: float) -> float:
    """Share of alive weights to exchange, annealed from ``first`` to `FINAL_RATIO`.

    Args:
        schedule: a name in `SCHEDULES`.
        first: the ratio at the start, in [0, 1]; one below `FINAL_RATIO` stays as it is.
        progress: share of the annealing time that has passed, in [0, 1].
    """
    last = min(FINAL_RATIO, first)
    return last + (first - last) * SCHEDULES[schedule](progress)


def cosine(progress: float) -> float:
    """Half a cosine wave (Wang et al. 2024, after Dettmers & Zettlemoyer 2019)."""
    return (1 + math.cos(math.pi * progress)) / 2


def linear(progress: float) -> float:
    return 1 - progress


def constant(progress: float) -> float:
    return 1.0


# each falls from 1 at progress 0 to its end at progress 1
SCHEDULES = {"cosine": cosine, "linear": linear, "constant": constant}
