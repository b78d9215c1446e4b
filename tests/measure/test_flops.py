"""Operations counted by hand: additions and multiplications with non-zero operands."""

import torch
from torch import nn

from recbole_dsl import DSLConfig, sparsify
from recbole_dsl.graphs.propagation import PropagationMatrix
from recbole_dsl.measure.flops import flops_of_one, forward_flops


def test_a_linear_layer_costs_two_operations_per_alive_weight_and_the_bias():
    model = nn.Linear(20, 30)
    weight = sparsify(model, DSLConfig(density=0.1)).weights["weight"]
    x = torch.ones(4, 20)
    assert forward_flops(model, lambda model: model(x)) == (4 * (2 * 20 * 30 + 30), 4 * (2 * weight.nnz + 30))


def test_a_dot_product_costs_what_both_factors_share():
    model = nn.Embedding(8, 16)
    weight = sparsify(model, DSLConfig(density=0.5)).weights["weight"]
    alive = weight.alive_in(0, 8)
    shared = int((alive[2] & alive[5]).sum())
    a, b = torch.tensor([2]), torch.tensor([5])
    dense, sparse = forward_flops(model, lambda model: (model(a) * model(b)).sum(-1))
    assert (dense, sparse) == (2 * 16, 2 * shared)


def test_a_propagation_costs_two_operations_per_edge_and_alive_weight():
    model = nn.Embedding(6, 4)
    weight = sparsify(model, DSLConfig(density=0.5)).weights["weight"]
    edges = torch.tensor([[0, 0, 3, 5], [1, 2, 1, 4]])
    graph = torch.sparse_coo_tensor(edges, torch.ones(4), (6, 6))
    per_row = weight.alive_in(0, 6).sum(1)
    dense, sparse = forward_flops(model, lambda model: torch.sparse.mm(graph, model.weight))
    assert (dense, sparse) == (2 * 4 * 4, 2 * int(per_row[edges[1]].sum()))
    compressed = PropagationMatrix(graph)
    assert forward_flops(model, lambda model: torch.sparse.mm(compressed, model.weight)) == (dense, sparse)


def test_one_interaction_costs_its_mean_share_and_all_that_is_done_once():
    model = nn.Embedding(8, 16)
    weight = sparsify(model, DSLConfig(density=0.5)).weights["weight"]
    alive = weight.alive_in(0, 8)
    a, b = torch.tensor([2, 3, 3]), torch.tensor([5, 6, 7])
    shared = int((alive[a] & alive[b]).sum())
    once = torch.eye(8)

    def forward(model, times):
        table = torch.mm(once, model.weight)
        return (table[a.repeat(times)] * table[b.repeat(times)]).sum(-1)

    sparse = 2 * weight.nnz + 2 * shared / 3
    assert flops_of_one(model, forward, 3) == (2 * 8 * 16 + 2 * 16, round(sparse))


def test_a_convolution_costs_two_operations_per_alive_weight_and_place():
    model = nn.Conv2d(1, 3, 2, bias=False)
    weight = sparsify(model, DSLConfig(density=0.5)).weights["weight"]
    x = torch.ones(1, 1, 5, 5)
    assert forward_flops(model, lambda model: model(x)) == (2 * 12 * 16, 2 * weight.nnz * 16)


def test_the_figures_do_not_depend_on_what_was_drawn_before():
    model = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 5))
    sparsify(model, DSLConfig(density=0.5))
    # about half of the units pass the ReLU
    x = torch.tensor([1.0, -1.0] * 10)
    first = forward_flops(model, lambda model: model(x))
    torch.rand(7)
    assert forward_flops(model, lambda model: model(x)) == first


def test_the_model_and_the_random_state_are_left_as_they_were():
    model = nn.Embedding(8, 16)
    sparsify(model, DSLConfig(density=0.5))
    before, state = model.weight.clone(), torch.get_rng_state()
    forward_flops(model, lambda model: model(torch.tensor([1])) * torch.rand(16))
    assert torch.equal(model.weight, before) and torch.equal(torch.get_rng_state(), state)
