"""Drawing random numbers from a seed without a trace in the process."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from recbole_dsl.measure.untouched import random_state_kept
from recbole_dsl.turns import turn


@contextmanager
def drawing_from(seed: int) -> Iterator[None]:
    """Lets Python, NumPy and PyTorch draw what they draw after RecBole's ``init_seed``; restores their states."""
    with turn(), random_state_kept():
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        yield
