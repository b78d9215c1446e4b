import copy
import operator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from recbole_dsl.sparse.compressed_rows import smallest_unsigned
from recbole_dsl.sparse.weight import SparseWeight
from tests.toy import exchange_at


@st.composite
def masked(draw, max_rows=8, max_columns=9):
    """A dense weight, its ascending alive positions and the mask they form."""
    rows, columns = draw(st.integers(1, max_rows)), draw(st.integers(1, max_columns))
    mask = torch.tensor(draw(st.lists(st.booleans(), min_size=rows * columns, max_size=rows * columns)))
    dense = torch.randn(rows, columns, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return dense, mask.nonzero().view(-1), mask.view(rows, columns)


@given(masked(), st.data())
def test_rows_and_their_gradient_are_those_of_a_masked_embedding(weight, data):
    dense, positions, mask = weight
    sparse = SparseWeight.of(dense, positions)
    ids = torch.tensor(data.draw(st.lists(st.integers(0, len(dense) - 1), max_size=12)), dtype=torch.long)
    reference = (dense * mask).requires_grad_()
    expected = F.embedding(ids, reference)
    out = sparse.rows(ids)
    assert torch.equal(out, expected)
    upstream = torch.randn(expected.shape, dtype=torch.float64)
    out.backward(upstream)
    expected.backward(upstream)
    assert torch.allclose(sparse.values.grad, reference.grad[mask], rtol=0, atol=1e-12)


@given(masked())
def test_dense_and_its_gradient_are_those_of_the_masked_weight(weight):
    dense, positions, mask = weight
    sparse = SparseWeight.of(dense, positions)
    out = sparse.dense()
    assert torch.equal(out, dense * mask)
    upstream = torch.randn_like(dense)
    out.backward(upstream)
    assert torch.equal(sparse.values.grad, upstream[mask])
    assert torch.equal(sparse.alive_in(0, len(dense)), mask)


@given(masked(), st.data())
def test_exchange_moves_values_and_every_state_tensor_alike(weight, data):
    dense, positions, mask = weight
    sparse = SparseWeight.of(dense, positions)
    free = (~mask).view(-1).nonzero().view(-1).tolist()
    slots = data.draw(st.lists(st.integers(0, max(len(positions) - 1, 0)), unique=True, max_size=len(positions)))
    grown = sorted(data.draw(st.lists(st.sampled_from(free), unique=True)) if free else [])
    moment = torch.arange(1.0, sparse.nnz + 1)
    state = {"step": torch.tensor(3.0), "moment": moment.clone()}
    before = dict(zip(positions.tolist(), zip(sparse.values.tolist(), moment.tolist())))
    expected = {p: v for slot, (p, v) in enumerate(before.items()) if slot not in slots}
    expected.update(dict.fromkeys(grown, (0.0, 0.0)))

    exchange_at(sparse, slots, grown, [state])

    after = dict(zip(sparse.positions().tolist(), zip(sparse.values.tolist(), state["moment"].tolist())))
    assert after == expected
    assert list(after) == sorted(after)
    assert state["step"] == 3


def test_exchange_of_equal_size_keeps_every_tensor_in_its_place():
    sparse = SparseWeight.of(torch.ones(4, 4), torch.tensor([0, 5, 10, 15]))
    sparse.values.grad = torch.ones(4)
    moment = torch.ones(4)
    tensors = [sparse.values, sparse.values.grad, sparse.columns, sparse.row_offsets, moment]
    addresses = [t.data_ptr() for t in tensors]
    exchange_at(sparse, [1], [6], [{"moment": moment}])
    now = [sparse.values, sparse.values.grad, sparse.columns, sparse.row_offsets, moment]
    assert [t.data_ptr() for t in now] == addresses
    assert sparse.values.tolist() == moment.tolist() == [1, 0, 1, 1]
    assert sparse.values.grad.tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize(
    "columns, dtype", [(256, torch.uint8), (257, torch.uint16), (65_536, torch.uint16), (70_000, torch.uint32)]
)
def test_columns_take_the_smallest_unsigned_type(columns, dtype):
    assert smallest_unsigned(columns) is dtype
    dense = torch.randn(3, columns)
    sparse = SparseWeight.of(dense, torch.tensor([0, columns - 1, columns, 3 * columns - 1]))
    assert sparse.columns.dtype is dtype
    assert sparse.rows(torch.tensor([2, 0]))[:, -1].tolist() == dense[[2, 0], -1].tolist()
    exchange_at(sparse, [0], [columns + 1])
    assert sparse.positions().tolist() == [columns - 1, columns, columns + 1, 3 * columns - 1]


def test_positions_are_counted_in_64_bits():
    sparse = SparseWeight.of(torch.ones(3, 2), torch.tensor([0, 3]))
    assert sparse.index.rows.dtype is sparse.positions().dtype is torch.int64


def test_ids_outside_the_table_are_refused():
    sparse = SparseWeight.of(torch.ones(3, 2), torch.tensor([0, 3]))
    for bad in (-1, 3):
        with pytest.raises(IndexError):
            sparse.rows(torch.tensor([bad]))


def test_state_dict_restores_another_topology_and_size():
    dense = torch.randn(5, 4)
    source = SparseWeight.of(dense, torch.tensor([1, 7, 8, 19]))
    target = SparseWeight.of(dense, torch.tensor([0, 2]))
    parameter = target.values
    target.load_state_dict(source.state_dict())
    assert torch.equal(target.dense(), source.dense())
    assert target.values is parameter, "an optimizer built before must keep training it"


@pytest.mark.parametrize(
    "change, message",
    [
        ({"row_offsets": torch.tensor([0, 1, 2], dtype=torch.int32)}, "rows"),
        ({"row_offsets": torch.tensor([0, 2, 1, 3], dtype=torch.int32)}, "divide"),
        ({"row_offsets": torch.tensor([0, 2, 2, 3])}, "row_offsets are torch.int64"),
        ({"columns": torch.tensor([0, 1, 1])}, "columns are torch.int64"),
        ({"values": torch.ones(3, dtype=torch.int64)}, "floating-point"),
        ({"values": torch.tensor([1.0, float("nan"), 1.0])}, "finite"),
        ({"columns": torch.tensor([0, 1, 9], dtype=torch.uint8)}, "outside"),
        ({"columns": torch.tensor([1, 0, 1], dtype=torch.uint8)}, "ascend"),
        ({"values": torch.ones(4)}, "belong together"),
    ],
)
def test_state_dict_that_is_no_topology_is_refused(change, message):
    weight = SparseWeight.of(torch.ones(3, 2), torch.tensor([0, 1, 4]))
    before = weight.dense()
    with pytest.raises(RuntimeError, match=message):
        weight.load_state_dict({**weight.state_dict(), **change})
    assert torch.equal(weight.dense(), before)


@pytest.mark.parametrize("n", [3, 40], ids=["a few rows", "more look-ups than rows"])
def test_gradient_sink_gets_the_same_sum_however_rows_are_looked_up(n):
    sparse = SparseWeight.of(torch.randn(10, 3), torch.tensor([0, 4, 11]))
    ids, upstream = torch.arange(n) % 10, torch.randn(n, 3)
    collected = torch.zeros(10, 3)

    def collect(rows, gradient):
        collected.index_add_(0, torch.arange(10) if rows is None else rows, gradient)

    sparse.reader.gradient_sink = collect
    (sparse.rows(ids) * upstream).sum().backward()
    assert torch.allclose(collected, torch.zeros(10, 3).index_add_(0, ids, upstream), atol=1e-6)


def test_gradient_sink_sees_the_dense_gradient_of_what_was_read():
    dense = torch.randn(5, 3)
    sparse = SparseWeight.of(dense, torch.tensor([0, 4, 11]))
    seen = []
    sparse.reader.gradient_sink = lambda ids, gradient: seen.append((ids, gradient.clone()))
    sparse.rows(torch.tensor([[1, 3]])).sum().backward()
    (2 * sparse.dense()).sum().backward()
    assert seen[0][0].tolist() == [1, 3] and torch.equal(seen[0][1], torch.ones(2, 3))
    assert seen[1][0] is None and torch.equal(seen[1][1], torch.full((5, 3), 2.0))


def test_moves_with_the_module():
    module = nn.Sequential(SparseWeight.of(torch.ones(3, 2), torch.tensor([0, 3])))
    module.to(torch.float16)
    assert module[0].values.dtype is torch.float16 and module[0].columns.dtype is torch.uint8


def test_a_change_of_size_outlives_the_loss_of_the_step_before():
    sparse = SparseWeight.of(torch.ones(3, 2), torch.tensor([0, 1, 4]))
    optimizer = torch.optim.SGD(sparse.parameters(), lr=1.0)
    loss = sparse.dense().sum()
    loss.backward()
    exchange_at(sparse, [0], [])
    next_loss = sparse.dense().sum()
    next_loss.backward()
    optimizer.step()
    assert sparse.values.tolist() == [0, 0]
    del loss


def test_the_gradients_of_look_ups_in_a_large_weight_are_added_up(monkeypatch):
    monkeypatch.setattr("recbole_dsl.sparse.reading._ONE_GRADIENT_FROM", 1)
    weights = [SparseWeight.of(torch.arange(12.0).view(6, 2), torch.tensor([1, 2, 5, 6, 9])) for _ in range(2)]
    weights[1].rows(torch.tensor([0])).sum().backward()
    weights.append(copy.deepcopy(weights[1]))
    for weight in weights:
        monkeypatch.setattr("recbole_dsl.sparse.reading._ONE_GRADIENT_FROM", 100 if weight is weights[0] else 1)
        for _ in range(2):
            weight.values.grad = None
            (weight.rows(torch.tensor([1, 4, 1])) * 2 + weight.rows(torch.tensor([0, 2, 4]))).sum().backward()
            assert not weight.values.grad.is_sparse
        (weight.dense() * 3).sum().backward()
        assert not weight.values.grad.is_sparse
        assert torch.equal(weight.values.grad, weights[0].values.grad)


def test_the_dense_form_is_made_once_where_it_is_kept_and_not_with_a_gradient():
    weight = SparseWeight.of(torch.randn(6, 2), torch.tensor([1, 2, 5, 6, 9]))
    ids = torch.tensor([[1, 4], [2, 2]])
    expected, rows = weight.dense().detach(), weight.rows(ids).detach()
    with weight.dense_kept():
        assert weight.dense().requires_grad and weight.view().requires_grad
        with torch.no_grad():
            kept = weight.dense()
            assert weight.dense() is kept and weight.view() is kept and isinstance(kept, nn.Parameter)
            assert torch.equal(kept, expected) and torch.equal(weight.rows(ids), rows)
        assert weight.rows(ids).requires_grad
    with torch.no_grad():
        weight.values.mul_(2)
        assert torch.equal(weight.dense(), 2 * expected) and torch.equal(weight.rows(ids), 2 * rows)


@pytest.mark.parametrize(
    "old, new",
    [("brought", "pretrained"), *((n, f"reader.{n}") for n in ("pending", "gradient_sink", "sparse_gradient"))],
)
def test_attributes_keep_their_former_names_for_now(old, new):
    weight = SparseWeight.of(torch.ones(3, 2), torch.tensor([0, 3]))
    with pytest.warns(DeprecationWarning, match=f"use {new}"):
        setattr(weight, old, "value")
    with pytest.warns(DeprecationWarning, match=f"use {new}"):
        assert getattr(weight, old) == operator.attrgetter(new)(weight) == "value"
