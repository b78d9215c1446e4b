"""The plain dense model that `densify` gives back."""

import copy
import io

import pytest
import torch
from torch import nn

from recbole_dsl import DSLConfig, DSLError, DynamicTopology, SparseWeight, densify, sparse_weights, sparsify
from tests.toy import Toy, toy_batch, toy_loss


class Tied(nn.Module):
    """A table that is read under two names, a frozen one, and a module that is nested."""

    def __init__(self):
        super().__init__()
        self.toy = Toy(torch.float32)
        self.table = nn.Embedding(15, 6)
        self.output = nn.Linear(6, 15)
        self.output.weight = self.table.weight
        self.frozen = nn.Embedding(15, 6).requires_grad_(False)
        self.both = nn.ParameterList([nn.Parameter(torch.randn(4, 5)) for _ in range(2)])

    def forward(self, users, items):
        hidden = self.table(items) + self.frozen(items)
        return self.output(hidden) + self.toy(users, items).unsqueeze(1) + (self.both[0] * self.both[1]).sum()


def signature(model):
    modules = [(name, type(module)) for name, module in model.named_modules(remove_duplicate=False)]
    parameters = [(n, p.shape, p.requires_grad) for n, p in model.named_parameters(remove_duplicate=False)]
    return modules, parameters, list(model.state_dict()), [type(p) for p in model.parameters()]


@pytest.mark.parametrize("density", [0.3, 1.0])
def test_everything_is_as_before_but_what_is_not_alive_is_zero(density):
    torch.manual_seed(0)
    model, fresh = Tied(), Tied()
    before = signature(model)
    weights = sparsify(model, DSLConfig(density=density)).weights
    weights["both.1"].requires_grad_(False)
    users, items, _ = toy_batch(torch.Generator().manual_seed(0))
    expected, dense = model(users, items), {name: weight.dense().detach() for name, weight in weights.items()}
    assert densify(model) is model
    model.both[1].requires_grad_(True)
    assert signature(model) == before and not sparse_weights(model)
    assert model.output.weight is model.table.weight
    assert density == 1 or not model.toy.item.weight[0].any()
    for name, parameter in model.named_parameters():
        assert name not in dense or torch.equal(parameter, dense[name])
    assert torch.allclose(model(users, items), expected, atol=1e-6)
    fresh.load_state_dict(model.state_dict(), strict=True)
    assert torch.equal(fresh(users, items), model(users, items))


def test_what_is_not_trained_stays_so():
    model = Toy()
    sparsify(model).weights["kernel"].requires_grad_(False)
    densify(model)
    assert not model.kernel.requires_grad and model.layer.weight.requires_grad


def test_it_can_be_sparse_again_and_a_dense_model_stays_as_it_is():
    model = Tied()
    before = signature(densify(model))
    first = sparsify(model, DSLConfig(density=0.5)).nnz
    densify(model)
    assert sparsify(model, DSLConfig(density=0.5)).nnz == first
    assert signature(densify(model)) == before


def test_a_frozen_copy_takes_dense_states_only_then():
    model, sparse = Tied(), Tied()
    sparsify(model), sparsify(sparse)
    densify(model)
    state = {
        "weight" + key[len("table.weight") :]: v for key, v in sparse.state_dict().items() if key[:6] == "table."
    }
    with pytest.raises(RuntimeError, match="Missing"):
        model.frozen.load_state_dict(state)


def test_export_and_trace():
    model = Toy(torch.float32)
    sparsify(model)
    users, items, _ = toy_batch(torch.Generator().manual_seed(0))
    expected = model(users, items)
    densify(model)
    exported = torch.export.export(model, (users, items))
    assert torch.allclose(exported.module()(users, items), expected, atol=1e-6)
    file = io.BytesIO()
    torch.jit.save(torch.jit.trace(copy.deepcopy(model), (users, items)), file)
    file.seek(0)
    assert torch.allclose(torch.jit.load(file)(users, items), expected, atol=1e-6)


def test_a_topology_of_it_has_nothing_to_update():
    model, config = Toy(), DSLConfig(density=0.3, update_interval=2)
    report = sparsify(model, config)
    topology = DynamicTopology(report.weights, config, total_steps=20)
    sparse_optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    topology.attach(sparse_optimizer)
    densify(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    with pytest.raises(DSLError, match="is dense since densify"):
        topology.attach(optimizer)
    before = [weight.positions().clone() for weight in report.weights.values()]
    generator = torch.Generator().manual_seed(0)
    for _ in range(4):
        optimizer.zero_grad()
        toy_loss(model, toy_batch(generator)).backward()
        optimizer.step()
        sparse_optimizer.step()
    assert all(torch.equal(a, weight.positions()) for a, weight in zip(before, report.weights.values()))
    assert model.user.weight.count_nonzero() == model.user.weight.numel(), "all of it is trained"


def test_what_reads_sparse_weights_itself_is_refused():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.toy = Toy()
            self.own = SparseWeight.of(torch.randn(3, 2), torch.tensor([1]))

    model = Own()
    sparsify(model.toy)
    before = model.state_dict()
    with pytest.raises(DSLError, match=r"^own: is read as a sparse weight"):
        densify(model)
    assert list(model.state_dict()) == list(before)
    with pytest.raises(DSLError, match="model="):
        densify(model.own)
