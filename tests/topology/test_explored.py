"""The record of what was alive."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from recbole_dsl.topology.explored import Explored


@given(st.integers(1, 100), st.data())
def test_explored_counts_each_position_once(numel, data):
    explored, seen = Explored(numel, torch.device("cpu")), set()
    for _ in range(3):
        begin = 8 * data.draw(st.integers(0, (numel - 1) // 8))
        alive = data.draw(st.lists(st.booleans(), max_size=numel - begin))
        explored.mark(begin, torch.tensor(alive, dtype=torch.bool))
        seen |= {begin + i for i, one in enumerate(alive) if one}
    assert explored.count == len(seen)
    start = data.draw(st.integers(0, numel))
    stop = data.draw(st.integers(start, numel))
    assert explored.marked_in(start, stop).tolist() == [p in seen for p in range(start, stop)]
    copy = Explored(numel, torch.device("cpu"))
    copy.load(explored.bits)
    assert copy.count == len(seen)
