"""The entries of a weight after an exchange: Numba's loops and PyTorch's functions against a dense matrix."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_dsl.compiling import compiled_loops
from recbole_dsl.sparse import rewrite as subject
from recbole_dsl.sparse.compressed_rows import CompressedRows, row_blocks
from recbole_dsl.sparse.rewrite import exchanged, rewrite
from tests.toy import blocks_of

needs_numba = pytest.mark.skipif(
    compiled_loops("recbole_dsl.sparse.compiled_merge") is None, reason="Numba is not there"
)
WAYS = [pytest.param(2**62, id="plain"), pytest.param(0, id="compiled", marks=needs_numba)]


def compressed(alive, dtype):
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), alive.sum(1).cumsum(0)])
    return CompressedRows(alive.shape[1], alive.nonzero()[:, 1].to(dtype), offsets.int())


@pytest.mark.parametrize("least", WAYS)
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_what_stays_keeps_its_entries_and_what_comes_is_zero(least, data):
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
    with blocks_of(data.draw(st.sampled_from([8, 200, 2**20]))), pytest.MonkeyPatch.context() as patch:
        patch.setattr(subject, "_WORTH_COMPILING", least)
        masks = [new[start:stop].reshape(-1) for start, stop in row_blocks(n_rows, n_columns)]
        found = rewrite(
            index,
            lambda i, positions: exchanged(positions(), masks[i]),
            int(new.sum()),
            [one[old] for one in dense],
        )
    wanted = compressed(new, index.columns.dtype)
    assert found.columns.equal(wanted.columns) and found.row_offsets.equal(wanted.row_offsets)
    for entries, ones in zip(found.entries, expected):
        assert entries.dtype == ones.dtype and entries.equal(ones)


@needs_numba
def test_types_that_numpy_does_not_have_are_merged_plainly(monkeypatch):
    monkeypatch.setattr(subject, "_WORTH_COMPILING", 0)
    index = compressed(torch.tensor([[True, False, True]]), torch.uint8)
    found = rewrite(
        index,
        lambda i, positions: (torch.tensor([0]), torch.tensor([1])),
        2,
        [torch.tensor([1.0, 2.0], dtype=torch.bfloat16)],
    )
    assert found.entries[0].tolist() == [0.0, 2.0] and found.columns.tolist() == [1, 2]
