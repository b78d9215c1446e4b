"""Devices that are not to be waited for: nothing in a training step needs an answer from them.

Tensors on PyTorch's meta device have no values, so that whatever asks for one raises there. What is computed in
such a step is compared on the CPU.
"""

import copy
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from recbole_dsl import DSLConfig, DynamicTopology, sparsify
from recbole_dsl.sparse.weight import SparseWeight
from tests.running import prepare
from tests.sparse.test_weight import masked
from tests.toy import exchange_at

# each reads its tables in another way: rows, a few rows of one with padding, and the whole of one
MODELS = {
    "BPR": {},
    "FM": {
        "load_col": {"inter": "*", "user": "*", "item": "*"}, "threshold": {"rating": 4},
        "eval_args": {"mode": "uni10"},
    },
    "SASRec": {
        "train_neg_sample_args": None, "loss_type": "CE", "hidden_size": 8, "inner_size": 16,
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]}, "MAX_ITEM_LIST_LENGTH": 10,
    },
}  # fmt: skip


@given(masked(), st.data())
def test_rows_read_without_waiting_are_those_that_are_read(weight, data):
    dense, positions, _ = weight
    sparse = SparseWeight.of(dense, positions)
    ids = torch.tensor(data.draw(st.lists(st.integers(0, len(dense) - 1), max_size=12)), dtype=torch.long)
    out = replace(sparse.index, values=sparse.values).padded_rows(ids)
    expected = sparse.rows(ids)
    assert torch.equal(out, expected)
    upstream = torch.randn_like(expected)
    (ours,) = torch.autograd.grad(out, sparse.values, upstream)
    (usual,) = torch.autograd.grad(expected, sparse.values, upstream)
    assert torch.allclose(ours, usual, rtol=0, atol=1e-12)


def test_the_longest_row_is_that_of_the_topology_there_is():
    mask = torch.tensor([[True, True, False], [False, False, True]])
    sparse = SparseWeight((2, 3), [mask])
    assert sparse.index.longest_row == 2
    exchange_at(sparse, [0, 1], [3, 4])
    assert sparse.index.longest_row == 3
    other = SparseWeight((2, 3), [mask])
    other.load_state_dict(sparse.state_dict())
    assert other.index.longest_row == copy.deepcopy(sparse).index.longest_row == 3


@pytest.mark.parametrize("model", MODELS)
def test_a_training_step_asks_a_device_for_nothing(options, model):
    _, network, train_data, *_ = prepare(model, {**options, **MODELS[model]})
    config = DSLConfig(density=0.1, update_interval=100, grow_window=10)
    report = sparsify(network, config)
    topology = DynamicTopology(report.weights, config, total_steps=1000)
    for weight in report.weights.values():
        assert weight.index.longest_row
    network.to("meta")
    network.device = torch.device("meta")
    optimizer = torch.optim.Adam(network.parameters())
    topology.attach(optimizer)
    for batch in train_data:
        loss = network.calculate_loss(batch.to("meta"))
        loss.backward()
        optimizer.step()
    assert topology.step == len(train_data)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("model", [*MODELS, "LightGCN"])
def test_a_gpu_computes_what_the_cpu_does(options, model):
    found = []
    for device in ("cpu", "cuda"):
        _, network, train_data, *_ = prepare(
            model, {**options, **MODELS.get(model, {}), "use_gpu": device == "cuda"}
        )
        report = sparsify(network.to(device), DSLConfig(density=0.1))
        batch = next(iter(train_data)).to(device)
        torch.manual_seed(0)
        network.eval()
        loss = network.calculate_loss(batch)
        loss.backward()
        found.append([loss.detach().cpu(), *(w.values.grad.cpu() for w in report.weights.values())])
    assert all(torch.allclose(*pair, rtol=1e-4, atol=1e-6) for pair in zip(*found))


def test_the_module_of_an_embedding_goes_to_another_device_with_its_weight():
    model = nn.Sequential(nn.Embedding(12, 5))
    sparsify(model, DSLConfig(density=0.5))
    model.to("meta")
    assert model[0](torch.zeros(2, 3, dtype=torch.long, device="meta")).shape == (2, 3, 5)
