"""The dataset "tiny", generated: atomic files of every kind that RecBole's model families read."""

from pathlib import Path

import numpy as np

USERS, ITEMS = 40, 50


def write_tiny(folder: Path) -> None:
    """Write 40 users with tastes in two groups, 15 of 50 items each, features, and a graph of 80 entities."""
    folder.mkdir()
    random = np.random.default_rng(0)
    interactions = []
    for user in range(USERS):
        taste = np.where(np.arange(ITEMS) % 2 == user % 2, 4.0, 1.0)
        items = random.choice(ITEMS, size=15, replace=False, p=taste / taste.sum())
        interactions += [
            (f"u{user}", f"i{item}", 3 + 2 * (item % 2 == user % 2), time) for time, item in enumerate(items)
        ]
    _write(folder / "tiny.inter", "user_id:token item_id:token rating:float timestamp:float", interactions)
    users = [(f"u{user}", 20 + user % 5, "MF"[user % 2]) for user in range(USERS)]
    _write(folder / "tiny.user", "user_id:token age:token gender:token", users)
    items = [
        (f"i{item}", 1990 + item % 4, " ".join(f"c{c}" for c in {item % 3, item % 7})) for item in range(ITEMS)
    ]
    _write(folder / "tiny.item", "item_id:token release_year:token class:token_seq", items)
    _write(folder / "tiny.link", "item_id:token entity_id:token", [(f"i{i}", f"e{i}") for i in range(ITEMS)])
    triples = {
        (f"e{random.integers(80)}", f"r{random.integers(4)}", f"e{random.integers(80)}") for _ in range(300)
    }
    for suffix, letter, count in (("ent", "e", 80), ("rel", "r", 4)):
        embedded = [(f"{letter}{i}", " ".join(f"{x:.3f}" for x in random.normal(size=64))) for i in range(count)]
        _write(folder / f"tiny.{suffix}", f"{suffix}_id:token {suffix}_emb:float_seq", embedded)
    _write(folder / "tiny.kg", "head_id:token relation_id:token tail_id:token", sorted(triples))


def _write(file: Path, columns: str, rows: list) -> None:
    lines = ["\t".join(columns.split()), *("\t".join(map(str, row)) for row in rows)]
    file.write_text("\n".join(lines) + "\n")
