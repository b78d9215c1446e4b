import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_dsl import initialisation
from recbole_dsl.initialisation.factors import Factors, initialise_from
from recbole_dsl.sparse.validity import topology_problem
from recbole_dsl.sparse.weight import SparseWeight


def interactions(users=60, items=90, groups=3, seed=0):
    """Users of a group like the items of that group, and a few others."""
    draw = np.random.default_rng(seed)
    same = np.arange(users)[:, None] % groups == np.arange(items)[None] % groups
    return sp.csr_matrix((draw.random((users, items)) < np.where(same, 0.5, 0.05)).astype(np.float32))


def weight_of(rows, columns, nnz, padding_row=None):
    generator = torch.Generator().manual_seed(5)
    free = torch.ones(rows, columns, dtype=torch.bool)
    if padding_row is not None:
        free[padding_row] = False
    positions = free.view(-1).nonzero().squeeze(1)
    positions = positions[torch.randperm(len(positions), generator=generator)[:nnz]].sort().values
    return SparseWeight.of(torch.randn(rows, columns, generator=generator), positions, padding_row)


def test_the_products_are_those_of_the_largest_singular_values(monkeypatch):
    monkeypatch.setattr(initialisation.factors, "_NOISE", 1.0)
    matrix = interactions()
    factors = Factors(matrix, 8)
    products = factors.users(0, 60).double() @ factors.items(0, 90).T.double()
    ones = (matrix > 0).toarray().astype(float)
    damped = (
        np.maximum(ones.sum(1), 1)[:, None] ** -initialisation.factors._DAMPING
        * ones
        * np.maximum(ones.sum(0), 1)[None] ** -initialisation.factors._DAMPING
    )
    left, sizes, right = np.linalg.svd(damped)
    assert np.allclose(products, left[:, :8] * sizes[:8] @ right[:8], atol=1e-4)


def test_groups_become_columns_that_users_and_items_share():
    factors = Factors(interactions(), 8)
    columns = [side(0, n).abs().argmax(1) for side, n in ((factors.users, 60), (factors.items, 90))]
    for group in range(3):
        (of_users, of_items) = (column[group::3].mode().values for column in columns)
        assert of_users == of_items
        assert (columns[0][group::3] == of_users).float().mean() > 0.9
    assert len({int(columns[0][group::3].mode().values) for group in range(3)}) == 3


def test_what_shuffled_interactions_have_too_is_made_small():
    factors = Factors(interactions(users=300, items=400), 16)
    norms = factors.items(0, 400).norm(dim=0)
    assert (norms > norms.max() / 3).sum() == 3


def test_singular_values_are_shrunk_by_those_of_shuffled_interactions():
    matrix = interactions(users=300, items=400)
    damping = [np.asarray(matrix.sum(axis)).ravel() ** -initialisation.factors._DAMPING for axis in (1, 0)]
    sizes, noise = (
        np.linalg.svd(damping[0][:, None] * m.toarray() * damping[1], compute_uv=False)
        for m in (matrix, initialisation.factors._shuffle(matrix, 0))
    )
    factors = Factors(matrix, 16)
    products = factors.users(0, 300) @ factors.items(0, 400).T
    expected = (sizes[:3] ** 2 - noise[1] ** 2) ** 0.5
    assert np.allclose(torch.linalg.svdvals(products)[:3], expected, rtol=1e-3)


def test_rows_beyond_the_factorised_ones_are_projected(monkeypatch):
    whole = Factors(interactions(), 4).users(0, 60)
    monkeypatch.setattr(initialisation.factors, "_FACTORISED", 40)
    part = Factors(interactions(), 4).users(0, 60)
    assert part.shape == whole.shape and torch.isfinite(part).all()
    # users of one group still look alike, and unlike those of another
    unit = torch.nn.functional.normalize(part)
    assert (unit[0::3] @ unit[0::3].T).mean() > (unit[0::3] @ unit[1::3].T).mean() + 0.3


@pytest.mark.parametrize("shape", [(3, 200), (200, 3), (1, 1), (5, 7)])
def test_what_a_small_matrix_lacks_in_factors_is_small_but_not_zero(shape):
    matrix = sp.csr_matrix(np.ones(shape, dtype=np.float32))
    users = Factors(matrix, 16).users(0, shape[0])
    assert users.shape == (shape[0], 16) and torch.isfinite(users).all()
    assert (users != 0).all()


def test_a_table_wider_than_the_factors_has_them_first(monkeypatch):
    whole = Factors(interactions(), 16)
    monkeypatch.setattr(initialisation.factors, "_MOST_FACTORS", 8)
    part = Factors(interactions(), 16)
    for side, n in ("users", 60), ("items", 90):
        factors = getattr(part, side)(0, n)
        # rotated are the three groups, the other factors keep their order
        assert torch.allclose(factors[:, :8].abs(), getattr(whole, side)(0, n)[:, :8].abs(), atol=1e-3)
        assert 0 < factors[:, 8:].norm(dim=0).max() < factors[:, :3].norm(dim=0).min() / 3


def test_a_layer_wider_than_the_factors_has_what_stands_out_again_at_other_rotations(monkeypatch):
    monkeypatch.setattr(initialisation.factors, "_MOST_FACTORS", 8)
    table = Factors(interactions(), 8)
    layer = Factors(interactions(), 16).repeated
    users, items = layer.users(0, 60), layer.items(0, 90)
    assert torch.allclose(users[:, :8], table.users(0, 60), atol=1e-5)
    # three groups stand out: columns 8 to 10 and 11 to 13 are whole rotations, 14 and 15 begin one
    products = users[:, :3] @ items[:, :3].T
    for first in 8, 11:
        some = slice(first, first + 3)
        assert torch.allclose(users[:, some] @ items[:, some].T, products, atol=1e-5)
        assert not torch.allclose(users[:, some].abs(), users[:, :3].abs(), atol=0.1)
    assert not torch.allclose(users[:, 8:11].abs(), users[:, 11:14].abs(), atol=0.1)
    assert users.shape == (60, 16) and (users[:, 14:].norm(dim=0) > users[:, 3:8].norm(dim=0).max()).all()


def test_columns_of_the_factors_are_those_of_their_rows():
    factors = Factors(interactions(), 8)
    for side, n in (factors.users, 60), (factors.items, 90):
        assert torch.allclose(side(0, n, slice(2, 5)), side(0, n)[:, 2:5], atol=1e-6)


def test_no_interactions_give_finite_factors():
    assert torch.isfinite(Factors(sp.csr_matrix((4, 5), dtype=np.float32), 8).items(0, 5)).all()


@settings(max_examples=30, deadline=None)
@given(
    rows=st.integers(2, 30),
    columns=st.integers(2, 9),
    share=st.floats(0.05, 1),
    padded=st.booleans(),
    by_share=st.booleans(),
)
def test_the_budget_and_the_padding_stay(rows, columns, share, padded, by_share):
    padding = 0 if padded else None
    nnz = max(1, int(share * (rows - padded) * columns))
    weight = weight_of(rows, columns, nnz, padding)
    initialise_from(
        weight, lambda a, b: torch.ones(rows, columns)[a:b], torch.Generator().manual_seed(0), by_share
    )
    counts = weight.row_offsets.long().diff()
    assert weight.nnz == nnz == counts.sum()
    if padded:
        assert counts[0] == 0
    if by_share or nnz >= 2 * rows:
        assert (counts > 0).sum() == min(nnz, rows - padded)
    assert topology_problem(*weight.shape, padding, weight.values, weight.columns, weight.row_offsets) is None
    assert float(weight.values.detach().square().sum()) / rows == pytest.approx(columns**0.5, rel=1e-4)


def test_the_largest_entries_are_alive_with_their_values():
    dense = torch.randn(20, 6, generator=torch.Generator().manual_seed(1))
    weight = weight_of(20, 6, 50)
    initialise_from(weight, lambda a, b: dense[a:b], torch.Generator().manual_seed(0))
    alive = weight.dense().detach()
    kept = dense.abs().clone()
    kept[torch.arange(20), kept.argmax(1)] = float("inf")
    expected = torch.zeros(120, dtype=torch.bool)
    expected[kept.view(-1).topk(50).indices] = True
    assert torch.equal(alive.view(-1) != 0, expected)
    scale = alive[alive != 0] / dense[alive != 0]
    assert torch.allclose(scale, scale[0].expand_as(scale))


def test_few_weights_go_to_as_many_rows_as_possible_by_share_and_else_to_the_largest():
    dense = torch.outer(2.0 ** torch.arange(0, -20, -1), torch.tensor([1.0, 0.9, 0.8]))
    lengths = {}
    for by_share in (False, True):
        weight = weight_of(20, 3, 12)
        initialise_from(weight, lambda a, b: dense[a:b], torch.Generator().manual_seed(0), by_share)
        lengths[by_share] = weight.row_offsets.long().diff().tolist()
    assert lengths[False] == [3, 3, 3, 3] + [0] * 16
    assert max(lengths[True]) == 1


def test_the_same_seed_gives_the_same_start():
    starts = []
    for _ in range(2):
        weight = weight_of(60, 8, 100)
        initialise_from(weight, Factors(interactions(), 8, seed=3).users, torch.Generator().manual_seed(3), True)
        starts.append(weight.dense().detach())
    assert torch.equal(*starts)
