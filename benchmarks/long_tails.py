"""Data with short histories: a dataset of which each user keeps a few interactions, and small groups of items."""

import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from benchmarks.many_fields import ensure_fields, is_fields
from recbole_dsl.files import whole_file

# items of a group, and groups of a user: two or three
GROUP_SIZE = 10
_USERS = 20_000
_THINNED, _GROUPS = re.compile(r"(.+)-thin-(\d+)"), re.compile(r"groups-(\d+)")


def ensure_dataset(name: str, data_path: str, made_path: str) -> str:
    """The folder that holds the dataset ``name``; it is written into ``made_path`` if it is one of ours.

    Args:
        name: a dataset's in ``data_path``; ``<dataset>-thin-<n>``, of which each user keeps ``n`` interactions at
            random; ``groups-<n>``: 20,000 users, each with 3 to 5 items of two or three of ``n`` groups of ten; or
            ``fields-<n>``: ``n`` rows of `benchmarks.many_fields`.
    """
    if not is_made(name):
        return data_path
    if is_fields(name):
        ensure_fields(Path(made_path), name)
        return made_path
    thinned, groups = _THINNED.fullmatch(name), _GROUPS.fullmatch(name)
    file = Path(made_path) / name / f"{name}.inter"
    if not file.exists():
        if thinned:
            pairs = _thinned(Path(data_path) / thinned[1] / f"{thinned[1]}.inter", int(thinned[2]))
        else:
            pairs = _small_groups(int(groups[1]))
        _write(file, pairs)
    return made_path


def is_made(name: str) -> bool:
    """Whether ``name`` is that of a dataset of ours."""
    return bool(_THINNED.fullmatch(name) or _GROUPS.fullmatch(name)) or is_fields(name)


def _thinned(file: Path, each: int) -> Iterable[tuple[str, str]]:
    """``each`` interactions of every user at random, or all there are, in the order of ``file``."""
    pairs = [tuple(line.split("\t")[:2]) for line in file.read_text().splitlines()[1:]]
    users = np.unique([user for user, _ in pairs], return_inverse=True)[1]
    order = np.lexsort((np.random.default_rng(0).random(len(users)), users))
    place = np.arange(len(users)) - np.searchsorted(users[order], users[order])
    return [pairs[i] for i in np.sort(order[place < each])]


def _small_groups(n: int) -> Iterable[tuple[int, int]]:
    """Users of two or three groups of items bought together; popularity falls with the root of the rank."""
    random = np.random.default_rng(0)
    of_groups, of_items = (np.arange(1, size + 1) ** -0.5 for size in (n, GROUP_SIZE))
    of_groups, of_items = of_groups / of_groups.sum(), of_items / of_items.sum()
    for user in range(_USERS):
        for group in random.choice(n, size=random.integers(2, 4), replace=False, p=of_groups):
            for item in random.choice(GROUP_SIZE, size=random.integers(3, 6), replace=False, p=of_items):
                yield user, group * GROUP_SIZE + item


def _write(file: Path, pairs: Iterable[tuple]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(str(file)) as out:
        out.write(b"user_id:token\titem_id:token\n")
        out.writelines(f"{user}\t{item}\n".encode() for user, item in pairs)
