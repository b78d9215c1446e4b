"""What RecBole's ``init_seed`` changes for all threads of the process."""

from functools import wraps
from typing import Any

import recbole.quick_start.quick_start
import recbole.utils
import torch

from recbole_dsl.checkpoint.random_state import random_state, restore_random_state
from recbole_dsl.patching import changes
from recbole_dsl.turns import give_way, refuse_to_seed


def between_steps(*_: Any) -> None:
    """Let threads that wait for their turn draw random numbers, and go on as if they had not."""
    give_way(_shared_state, _restore_shared_state)


@changes(
    "recbole.utils.init_seed", "seeding would change the numbers that another thread draws", "the process ends"
)
def guard_seeding() -> None:
    """Let RecBole's ``init_seed`` refuse to seed while another thread trains."""
    usual = recbole.utils.utils.init_seed

    @wraps(usual)
    def init_seed(seed: int, reproducibility: bool) -> None:
        refuse_to_seed()
        usual(seed, reproducibility)

    for module in (recbole.utils.utils, recbole.utils, recbole.quick_start.quick_start):
        module.init_seed = init_seed


def _shared_state() -> tuple[Any, ...]:
    cudnn = torch.backends.cudnn
    return random_state(), cudnn.benchmark, cudnn.deterministic


@changes("torch.backends.cudnn", "init_seed of another training has changed it", "init_seed")
def _restore_shared_state(state: tuple[Any, ...]) -> None:
    numbers, torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = state
    restore_random_state(numbers)
