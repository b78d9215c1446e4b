"""Interactions of any size whose users and items have power-law popularity, as a RecBole dataset."""

from itertools import repeat
from pathlib import Path

import numpy as np

from recbole_dsl.files import whole_file

# popularity falls with rank to this power: at a million items the most popular one has 0.4 % of all interactions
EXPONENT = 0.6
_CHUNK = 1_000_000


def ensure_power_law(
    data_path: str, users: int, items: int, interactions: int, name: str = "", seed: int = 0, times: bool = False
) -> str:
    """Write the atomic file ``<data_path>/<name>/<name>.inter`` unless it is there; return the dataset's name.

    With ``times`` each interaction has a ``timestamp``, in the order in which they are drawn.

    Every user and every item has at least one interaction, so that a model has ``users + 1`` and ``items + 1``
    rows (RecBole adds one for padding). Ids say nothing about popularity.
    """
    if interactions < max(users, items):
        raise ValueError(f"interactions={interactions}: must be at least {max(users, items)}, one for each")
    name = name or f"power-law-{users}-{items}-{interactions}" + "-times" * times
    folder = Path(data_path) / name
    file = folder / f"{name}.inter"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        _write(file, (users, items, interactions), np.random.default_rng(seed), times)
    return name


def popular_ranks(random: np.random.Generator, n: int, size: int) -> np.ndarray:
    """Draw ``size`` ranks from 0 to ``n - 1``, int64; the probability of rank r falls as (r + 1)^-EXPONENT."""
    return np.minimum((n * random.random(size) ** (1 / (1 - EXPONENT))).astype(np.int64), n - 1)


def _write(file: Path, sizes: tuple[int, int, int], random: np.random.Generator, times: bool) -> None:
    users, items, interactions = sizes
    user_of_rank, item_of_rank = random.permutation(users), random.permutation(items)
    once = max(users, items)
    with whole_file(str(file)) as out:
        out.write(b"user_id:token\titem_id:token" + b"\ttimestamp:float" * times + b"\n")
        for start in range(0, interactions, _CHUNK):
            stop = min(start + _CHUNK, interactions)
            # a first pass over all users and items, in two orders that have nothing to do with each other
            first = np.arange(start, min(stop, once))
            size = stop - start - len(first)
            user = np.concatenate([first % users, user_of_rank[popular_ranks(random, users, size)]])
            item = np.concatenate([item_of_rank[first % items], item_of_rank[popular_ranks(random, items, size)]])
            ends = (f"\t{time}\n" for time in range(start, stop)) if times else repeat("\n")
            out.writelines(f"{u}\t{i}{end}".encode() for u, i, end in zip(user.tolist(), item.tolist(), ends))
