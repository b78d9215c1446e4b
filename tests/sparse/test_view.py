"""The dense view of a sparse weight: no write into it is lost unseen, and it stands for the weight's values."""

import pytest
import torch
from torch import nn

from recbole_dsl import DSLConfig, DSLError, sparsify
from recbole_dsl.optim.uncompiled import leave_out_compiler
from recbole_dsl.sparse import weight as sparse_weight
from recbole_dsl.sparse.lazy_table import LazyTable
from recbole_dsl.sparse.view import DenseView
from tests.sparse.writes import FEW, GIVEN, NARROW, WRITES


@pytest.fixture(params=["made", "made when needed"])
def model(request, monkeypatch):
    is_lazy = request.param == "made when needed"
    monkeypatch.setattr(sparse_weight, "LAZY_FROM", 0 if is_lazy else FEW * NARROW + 1)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(FEW, NARROW), nn.Linear(NARROW, 4))
    sparsify(model, DSLConfig(density=0.5))
    assert type(model[0].weight) is (LazyTable if is_lazy else DenseView)
    return model


# which PyTorch calls without asking
UNSEEN = {"memory", "Tensor.set_"}
# ours, NumPy's and PyTorch's
REFUSALS = r"where it is lost|read-only|Cannot swap|Cannot assign|has not been made"


@pytest.mark.parametrize("name", [name for name in WRITES if name not in UNSEEN])
def test_no_write_is_lost(model, name):
    before = [values.detach().clone() for values in model.parameters()]
    with pytest.raises((DSLError, ValueError, RuntimeError), match=REFUSALS):
        WRITES[name](model[0].weight)
    assert all(torch.equal(*pair) for pair in zip(model.parameters(), before))


def test_nothing_that_only_reads_is_refused(model):
    weight, stored = model[0].weight, model[0]._modules["weight"]
    dense = stored.dense().detach()
    other = torch.zeros(FEW, NARROW)
    other.copy_(weight).add_(other=weight)
    assert torch.equal(other, 2 * dense)
    rows = [*weight.detach().unbind(), *weight.detach()]
    assert torch.equal(torch.stack(rows), torch.cat([dense, dense]))
    assert torch.equal(torch.t(input=weight), dense.t()) and torch.equal(nn.functional.relu(weight), dense.relu())
    copied = torch.from_numpy(weight.detach().numpy().copy())
    assert torch.equal(copied.mul_(2), 2 * dense)
    with torch.inference_mode():
        assert torch.equal(model[0].weight * 2, 2 * dense)


def train(model, optimizer):
    optimizer.zero_grad()
    model(torch.arange(FEW)).square().sum().backward()
    optimizer.step()


GROUPS = {
    "a list": lambda w: [w],
    "a group": lambda w: [{"params": [w], "lr": 0.1}],
    "a group of one": lambda w: [{"params": w}],
    "a filter": lambda w: filter(lambda p: p.requires_grad, [w]),
    "a name": lambda w: [("user", w)],
}


@pytest.mark.parametrize("kind", GROUPS)
def test_an_optimizer_of_it_is_refused_in_one_line(model, kind):
    with pytest.raises(DSLError, match=r"test_view.py:\d+: .*; give the optimizer the parameters\(\)"):
        torch.optim.Adam(GROUPS[kind](model[0].weight))


def test_the_line_is_the_users_after_a_training_changed_the_optimizers_too(model):
    leave_out_compiler()
    with pytest.raises(DSLError, match=r"test_view.py:\d+: "):
        torch.optim.Adam([model[0].weight])


def test_its_gradient_is_that_of_its_values(model):
    weight = model[0]._modules["weight"]
    assert model[0].weight.grad is None
    model(torch.arange(FEW)).square().sum().backward()
    gradient = model[0].weight.grad
    assert torch.equal(gradient.flatten()[weight.positions()], weight.values.grad)
    assert gradient.count_nonzero() <= weight.nnz
    torch.testing.assert_close(gradient.norm(), weight.values.grad.norm())
    with pytest.raises(DSLError, match="lost"):
        model[0].weight.grad.zero_()
    with pytest.raises(DSLError, match="lost"):
        model[0].weight.grad = GIVEN
    model[0].weight.grad = None
    assert weight.values.grad is None
    kept = model[0].weight
    kept.retain_grad()
    kept.square().sum().backward()
    assert torch.equal(kept.grad, 2 * kept)


@pytest.mark.parametrize(
    "freeze",
    [
        lambda table, is_trained: table.weight.requires_grad_(is_trained),
        lambda table, is_trained: setattr(table.weight, "requires_grad", is_trained),
        lambda table, is_trained: table.requires_grad_(is_trained),
        lambda table, is_trained: [p.requires_grad_(is_trained) for p in table.parameters()],
    ],
)
def test_freezing_it_freezes_its_values(model, freeze):
    optimizer = torch.optim.Adam(model.parameters())
    for is_trained in (False, True):
        freeze(model[0], is_trained)
        with torch.no_grad():
            assert model[0].weight.requires_grad == is_trained
        assert model[0].weight.requires_grad == is_trained
        before = model[0].weight.detach().clone()
        train(model, optimizer)
        assert torch.equal(model[0].weight, before) != is_trained


@pytest.mark.parametrize(
    "replace",
    [
        lambda m: m[0].register_parameter("weight", nn.Parameter(GIVEN)),
        lambda m: m[0]._parameters.__setitem__("weight", nn.Parameter(GIVEN)),
        lambda m: torch.func.functional_call(m, {"0.weight": GIVEN}, (torch.arange(3),)),
        lambda m: torch.func.functional_call(m, {"1.weight": torch.zeros(4, NARROW)}, (torch.arange(3),)),
        lambda m: setattr(m[0], "weight", nn.Parameter(GIVEN)),
    ],
)
def test_another_parameter_in_its_place_is_refused(model, replace):
    with pytest.raises(DSLError, match=r"^weight of \w+ is sparse and cannot be"):
        replace(model)
        model(torch.arange(3))


def test_a_state_that_is_assigned_is_kept(model):
    state = {name: 2 * t if "values" in name else t.clone() for name, t in model.state_dict().items()}
    wanted = 2 * model[0].weight.detach()
    optimizer = torch.optim.Adam(model.parameters())
    model.load_state_dict(state, assign=True)
    assert torch.equal(model[0].weight, wanted)
    train(model, optimizer)
    assert not torch.equal(model[0].weight, wanted)
