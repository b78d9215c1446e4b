"""Days to try nightly.py with: python days.py FOLDER [NIGHTS]

Users like a few of the topics. Each day some items go and others come, and some users come.
"""

import sys
from pathlib import Path

import numpy as np


def write_days(folder: str | Path, days: int = 3, users: int = 300, items: int = 200, a_day: int = 4000) -> None:
    """Write FOLDER/days/day-01.inter and so on, ``a_day`` interactions each."""
    random = np.random.default_rng(0)
    topics, n_users, n_items = 12, users + days * users // 20, items + days * items // 20
    topic = random.integers(0, topics, n_items)
    tastes = random.integers(0, topics, (n_users, 3))
    (Path(folder) / "days").mkdir(parents=True, exist_ok=True)
    for day in range(1, days + 1):
        first, last = day * items // 20, items + day * items // 20
        here = random.integers(0, users + day * users // 20, a_day)
        wanted = tastes[here, random.integers(0, 3, a_day)]
        chosen = random.integers(first, last, (a_day, 8))
        # the first of eight that is to their taste
        item = chosen[np.arange(a_day), (topic[chosen] == wanted[:, None]).argmax(1)]
        pairs = np.unique(np.stack([here, item], 1), axis=0)
        lines = "".join(
            f"u{u}\ti{i}\t{day + place / len(pairs):.6f}\n" for place, (u, i) in enumerate(pairs.tolist())
        )
        text = f"user_id:token\titem_id:token\ttimestamp:float\n{lines}"
        (Path(folder) / "days" / f"day-{day:02}.inter").write_text(text)


if __name__ == "__main__":
    write_days(sys.argv[1], *map(int, sys.argv[2:]))
