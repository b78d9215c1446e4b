"""Interactions over several nights, of users whose tastes drift with a catalogue that turns over.

    python -m benchmarks.drifting FOLDER

writes the RecBole dataset FOLDER/drifting, whose timestamp is the night, 0 for the first half.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_TASTES = 4


@dataclass(frozen=True)
class Drift:
    """What drifts, and how fast.

    Attributes:
        users, items: how many there are at first.
        topics: each item has two, and each user likes four.
        nights: after the first half.
        at_first, a_night: interactions.
        turnover: share of the items that go each night, and as many come.
        drift: share of the users who give up one topic for another each night.
        new_users: share of the first users that come each night.
    """

    users: int = 2000
    items: int = 1500
    topics: int = 60
    nights: int = 10
    at_first: int = 120_000
    a_night: int = 12_000
    turnover: float = 0.1
    drift: float = 0.3
    new_users: float = 0.04


def drifting(settings: Drift = Drift(), seed: int = 0) -> list[NDArray[np.int64]]:
    """The distinct interactions of the first half, and of each night: arrays (n, 2) of user and item.

    How active users are and how popular items are follows power laws. New items are twice as popular in their
    first night. A tenth of all interactions has nothing to do with taste.
    """
    s, random = settings, np.random.default_rng(seed)
    n_users = int(s.users * (1 + s.new_users * s.nights))
    n_items = int(s.items * (1 + s.turnover * s.nights))
    topics = random.integers(0, s.topics, (n_items, 2))
    popularity = random.permutation((1.0 + np.arange(n_items)) ** -0.7)
    born, gone = np.zeros(n_items, int), np.full(n_items, s.nights + 1)
    changing = int(s.items * s.turnover)
    for night in range(1, s.nights + 1):
        first = s.items + (night - 1) * changing
        born[first : first + changing] = night
        there = np.flatnonzero((born < night) & (gone > night))
        gone[random.choice(there, changing, replace=False)] = night
    came = np.maximum(0, np.arange(n_users) - s.users) // max(1, int(s.users * s.new_users)) + 1
    came[: s.users] = 0
    activity = random.permutation((1.0 + np.arange(n_users)) ** -0.5)
    tastes = random.integers(0, s.topics, (n_users, _TASTES))
    found = []
    for night in range(s.nights + 1):
        if night:
            some = np.flatnonzero(random.random(n_users) < s.drift)
            tastes[some, random.integers(0, _TASTES, len(some))] = random.integers(0, s.topics, len(some))
        n = s.a_night if night else s.at_first
        here = np.flatnonzero(came <= night)
        users = random.choice(here, n, p=activity[here] / activity[here].sum())
        wanted = tastes[users, random.integers(0, _TASTES, n)]
        offered = np.flatnonzero((born <= night) & (gone > night))
        items = random.choice(offered, n)
        by_taste = random.random(n) >= 0.1
        for topic in range(s.topics):
            of_topic = offered[(topics[offered] == topic).any(1)]
            places = np.flatnonzero(by_taste & (wanted == topic))
            if len(of_topic) and len(places):
                weights = popularity[of_topic] * np.where(born[of_topic] == night, 2, 1)
                items[places] = random.choice(of_topic, len(places), p=weights / weights.sum())
        found.append(np.unique(np.stack([users, items], 1), axis=0))
    return found


def main() -> None:
    folder = Path(sys.argv[1]) / "drifting"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "drifting.inter").open("w", encoding="ascii") as out:
        out.write("user_id:token\titem_id:token\ttimestamp:float\n")
        for night, interactions in enumerate(drifting()):
            out.writelines(f"u{user}\ti{item}\t{night}\n" for user, item in interactions.tolist())


if __name__ == "__main__":
    main()
