"""What warm starts changed: rows that came and went, weights that moved, and the quality of old and new users."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from recbole_dsl.checkpoint.tokens import is_same_packed
from recbole_dsl.report.facts import RunFacts
from recbole_dsl.report.figures import Figure


def parts_of_nights(runs: Sequence[RunFacts]) -> list[Figure | str]:
    """Tables of each run that began with a warm start; nothing if none did."""
    parts: list[Figure | str] = []
    for run in runs:
        if run.nights:
            of_run = f": {run.name}" if len(runs) > 1 else ""
            parts += [_fields(run, of_run), _weights(run, of_run), *_quality(run, runs, of_run)]
            parts += [_earlier(run, of_run)] if len(run.nights) > 1 else []
    return parts


def _fields(run: RunFacts, of_run: str) -> Figure:
    night = run.nights[-1]
    rows = [[name, *(f"{count:,}" for count in counts)] for name, counts in night["rows"].items()]
    words = f"Users, items and features, by their tokens, against the run {night['run']} that this one began with."
    return Figure(f"Rows that came and went{of_run}", words, head=["field", "kept", "new", "gone"], rows=rows)


def _weights(run: RunFacts, of_run: str) -> Figure:
    night = run.nights[-1]
    rows = [
        [name, f"{stayed:,}", f"{moved:,}", f"{moved / max(1, stayed + moved):.1%}"]
        for name, (stayed, moved) in night["weights"].items()
    ]
    words = "Alive weights that were alive at the same place before, and those that moved there from elsewhere."
    recoded = night["recoded"]
    words += f" Coded anew: {', '.join(recoded)}." if recoded else ""
    return Figure(
        f"Weights that moved{of_run}", words, head=["tensor", "stayed", "moved", "share moved"], rows=rows
    )


def _quality(run: RunFacts, runs: Sequence[RunFacts], of_run: str) -> list[Figure | str]:
    """Test quality of users and items that were there before and of new ones, of all runs with the same ids."""
    is_new = _new(run)
    if not run.data or not run.data.hits or not is_new:
        return [f"{run.name}: old and new users are not told apart, without ranks or a record of who is new."]
    shown = [(one.name, one.data.hits) for one in runs if one.data and one.data.hits and _has_same_ids(one, run)]
    if run.data.popular:
        shown.append(("most popular items", run.data.popular))
    hits, rows = run.data.hits, []
    for words, ids in (("users, there before", ~is_new["user"]), ("users, new", is_new["user"])):
        members = np.flatnonzero(ids)
        tested = sum(user in hits.ndcg for user in members)
        rows.append([words, f"{tested:,}", "NDCG@10", *(_number(one.of_users(members)[1]) for _, one in shown)])
    for words, ids in (("items, there before", ~is_new["item"]), ("items, new", is_new["item"])):
        members = np.flatnonzero(ids)
        tested = int(np.isin(hits.items, members).sum())
        rows.append([words, f"{tested:,}", "share found", *(_number(one.of_items(members)) for _, one in shown)])
    words = (
        "On the test data: for users the mean over those who have some, for items the share of their test "
        "interactions among the first ten. The second column counts these users and interactions."
    )
    head = ["", "tested", "metric", *(name for name, _ in shown)]
    return [Figure(f"Quality of old and new{of_run}", words, head=head, rows=rows)]


def _earlier(run: RunFacts, of_run: str) -> Figure:
    rows = []
    for number, night in enumerate(run.nights, 1):
        stayed, moved = (sum(counts[place] for counts in night["weights"].values()) for place in (0, 1))
        counts = [sum(of_field[place] for of_field in night["rows"].values()) for place in range(3)]
        rows.append([str(number), *(f"{count:,}" for count in counts), f"{moved / max(1, stayed + moved):.1%}"])
    head = ["", "rows kept", "new", "gone", "weights moved"]
    words = "The first one first, all fields and tensors together."
    return Figure(f"All warm starts{of_run}", words, head=head, rows=rows)


def _new(run: RunFacts) -> Mapping[str, NDArray[np.bool_]]:
    """ "user" and "item" -> for each id whether its token was not in the earlier model; empty if unknown."""
    if not run.data or not run.data.groups:
        return {}
    found = {}
    for side, name in zip(("user", "item"), run.data.fields):
        packed, n_rows = run.nights[-1]["new"].get(name), len(run.data.groups.counts[side])
        if packed is None or len(packed) != -(-(n_rows - 1) // 8):
            return {}
        bits = np.unpackbits(packed.numpy(), count=n_rows - 1).astype(bool)
        # the padding is nobody's
        found[side] = np.r_[False, bits]
    return found


def _has_same_ids(one: RunFacts, other: RunFacts) -> bool:
    if one is other:
        return True
    both = one.rows, other.rows
    if not all(both) or not one.data or not other.data or one.data.fields != other.data.fields:
        return False
    for name in one.data.fields:
        tokens, others = (rows["tokens"][rows["fields"][name]] for rows in both)
        if not is_same_packed(tokens, others):
            return False
    return True


def _number(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.4f}"
