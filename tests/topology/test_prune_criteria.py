"""What keeps a row's best weight."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from recbole_dsl.topology.prune_criteria import best_of_each_row


@given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from([0.0, 1.0, 2.0])), max_size=20))
def test_best_of_each_row_is_one_slot_per_row(entries):
    entries.sort(key=lambda entry: entry[0])
    rows, importance = [row for row, _ in entries], [value for _, value in entries]
    slots = best_of_each_row(torch.tensor(importance), torch.tensor(rows, dtype=torch.long)).tolist()
    expected = {row: max(v for r, v in entries if r == row) for row in rows}
    assert [rows[slot] for slot in slots] == sorted(expected)
    assert all(importance[slot] == expected[rows[slot]] for slot in slots)
