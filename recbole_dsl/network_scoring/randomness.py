"""Drawing random numbers from a seed without a trace in the process."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from recbole_dsl.checkpoint.random_state import random_state, restore_random_state
from recbole_dsl.turns import turn


@contextmanager
def drawing_from(seed: int) -> Iterator[None]:
    """Lets Python, NumPy and PyTorch draw what they draw after RecBole's ``init_seed``; restores their states."""
    with turn():
        before = random_state()
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        try:
            yield
        finally:
            restore_random_state(before)


def drawn_so_far() -> tuple:
    """The state of the CPU's generators, which differs later if anything was drawn."""
    return random.getstate(), np.random.get_state()[1].tobytes(), torch.get_rng_state().numpy().tobytes()
