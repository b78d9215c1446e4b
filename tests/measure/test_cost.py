import torch
from torch import nn

from recbole_dsl import DSLConfig, sparsify
from recbole_dsl.measure.cost import measure_cost


def test_what_stays_dense_is_counted_apart():
    model = nn.Sequential(nn.Embedding(10, 8), nn.GRU(8, 8))
    dense = sum(p.numel() for p in model[1].parameters())
    nnz = sparsify(model, DSLConfig(density=0.25)).nnz
    cost = measure_cost(model, [], lambda model, times: model[1](model[0](torch.tensor([[1]]))))
    assert (cost.sparse_tensors.dense, cost.sparse_tensors.sparse) == (80, nnz) == (80, 20)
    assert (cost.dense_tensors.dense, cost.dense_tensors.sparse) == (dense, dense)
    assert (cost.weights.dense, cost.weights.sparse) == (80 + dense, 20 + dense)
    assert cost.checkpoint_bytes.sparse is None and "weights of dense tensors" in str(cost)


def test_a_forward_that_cannot_be_measured_leaves_the_rest():
    model = nn.Embedding(10, 8)
    sparsify(model, DSLConfig(density=0.25))
    cost = measure_cost(model, [], lambda model, times: 1 / 0)
    assert cost.flops.sparse is None and cost.weights.sparse == 20
