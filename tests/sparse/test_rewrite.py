"""The entries of a weight after an exchange, against a dense matrix."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_dsl.sparse.compressed_rows import CompressedRows, row_blocks
from recbole_dsl.sparse.rewrite import exchanged, rewrite
from tests.toy import blocks_of


def compressed(alive, dtype):
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), alive.sum(1).cumsum(0)])
    return CompressedRows(alive.shape[1], alive.nonzero()[:, 1].to(dtype), offsets.int())


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_what_stays_keeps_its_entries_and_what_comes_is_zero(data):
    n_rows, n_columns = data.draw(st.integers(1, 40)), data.draw(st.sampled_from([1, 3, 64, 300]))
    draw = torch.Generator().manual_seed(data.draw(st.integers(0, 2**32)))
    old, new = (
        torch.rand(n_rows, n_columns, generator=draw) < data.draw(st.sampled_from([0.0, 0.1, 0.5, 1.0]))
        for _ in range(2)
    )
    if data.draw(st.booleans()):
        # as many as before: in place
        new = old.flatten()[torch.randperm(old.numel(), generator=draw)].view_as(old)
    dense = [
        torch.randn(n_rows, n_columns, generator=draw, dtype=dtype) for dtype in (torch.float32, torch.float64)
    ]
    expected = [torch.where(old & new, one, 0)[new] for one in dense]
    index = compressed(old, torch.uint8 if n_columns < 256 else torch.uint16)
    with blocks_of(data.draw(st.sampled_from([8, 200, 2**20]))):
        masks = [new[start:stop].reshape(-1) for start, stop in row_blocks(n_rows, n_columns)]
        found = rewrite(
            index,
            lambda i, positions: exchanged(positions, masks[i]),
            int(new.sum()),
            [one[old] for one in dense],
        )
    wanted = compressed(new, index.columns.dtype)
    assert found.columns.equal(wanted.columns) and found.row_offsets.equal(wanted.row_offsets)
    for entries, ones in zip(found.entries, expected):
        assert entries.dtype == ones.dtype and entries.equal(ones)
