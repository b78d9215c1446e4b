"""What is taken for fresh from an initialiser, and what for values that a model was given."""

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from recbole_dsl import DSLConfig, deferred_tables, sparsify
from recbole_dsl.initialisation.freshness import is_noise, pretrained_values
from recbole_dsl.sparse import deferred

INITIALISERS = {
    "normal": nn.init.normal_,
    "uniform": nn.init.uniform_,
    "truncated": nn.init.trunc_normal_,
    "orthogonal": nn.init.orthogonal_,
    "xavier": nn.init.xavier_normal_,
    "kaiming": nn.init.kaiming_uniform_,
    "constant": lambda tensor: nn.init.constant_(tensor, 0.1),
    "heavy-tailed": lambda tensor: tensor.cauchy_(),
    "one-sided": lambda tensor: tensor.exponential_(),
    "clipped": lambda tensor: tensor.normal_().clamp_(-1, 1),
}


@settings(max_examples=200)
@given(st.sampled_from(list(INITIALISERS)), st.integers(2, 300), st.integers(2, 300), st.integers(0, 10**6))
def test_initialisers_give_noise(name, rows, columns, seed):
    torch.manual_seed(seed)
    table = torch.empty(rows, columns)
    INITIALISERS[name](table)
    table[0] = 0
    assert is_noise(table, padding=0) in (True, None)
    assert is_noise(table.bfloat16(), padding=0) in (True, None)


def sinusoidal(rows=50, columns=64):
    angles = torch.arange(rows).unsqueeze(1) / 1e4 ** (torch.arange(0, columns, 2) / columns)
    return torch.stack([angles.sin(), angles.cos()], 2).view(rows, columns)


STRUCTURED = {
    "identity": lambda: torch.eye(20),
    "one-hot": lambda: nn.functional.one_hot(torch.arange(300) % 7).float(),
    "positions": lambda: sinusoidal(),
    "products": lambda: torch.randn(300, 3) @ torch.randn(3, 16) + 0.3 * torch.randn(300, 16),
    "groups": lambda: torch.randn(5, 16)[torch.arange(200) % 5] + torch.randn(200, 16),
    "rows of many sizes": lambda: torch.randn(300, 8) * torch.rand(300, 1),
    "columns of many sizes": lambda: torch.randn(300, 8) * torch.rand(8),
    "a shifted column": lambda: torch.cat([torch.randn(300, 8), torch.randn(300, 1) + 2], 1),
    "not finite": lambda: torch.full((30, 30), torch.nan),
}


@pytest.mark.parametrize("name", STRUCTURED)
def test_tables_with_a_structure_are_no_noise(name):
    assert is_noise(STRUCTURED[name]()) is False


def named(model):
    parameters = {name: p for name, p in model.named_parameters() if p.dim() > 1}
    return pretrained_values(parameters, dict.fromkeys(parameters))


def test_what_is_too_small_to_tell_is_like_the_others():
    model = nn.Sequential(nn.Embedding(100, 16), nn.Linear(16, 3, bias=False))
    assert named(model) == {}
    model[0].weight.data += torch.arange(16.0)
    assert set(named(model)) == {"0.weight", "1.weight"}
    model.append(nn.Linear(16, 100))
    assert set(named(model)) == {"0.weight"}


def used(model):
    model[0](torch.arange(3)).sum().backward()


def test_a_gradient_tells_that_a_weight_is_trained():
    model = nn.Sequential(nn.Embedding(100, 16), nn.Embedding(100, 16))
    used(model)
    assert set(named(model)) == {"0.weight"}


OUTSIDE = torch.randn(100, 3) @ torch.randn(3, 8)


def from_pretrained(module):
    module.table = nn.Embedding.from_pretrained(OUTSIDE.clone(), freeze=False)


def of_numpy(module):
    module.table.weight = nn.Parameter(torch.from_numpy(OUTSIDE.numpy().copy()))


GIVEN = {
    "from_pretrained": from_pretrained,
    "NumPy": of_numpy,
    "a list": lambda m: setattr(m.table, "weight", nn.Parameter(torch.tensor(OUTSIDE.tolist()))),
    "copy_": lambda m: m.table.weight.data.copy_(OUTSIDE),
    "data": lambda m: setattr(m.table.weight, "data", OUTSIDE.clone()),
    "rows by index": lambda m: m.table.weight.data.index_put_((torch.arange(50),), OUTSIDE[:50]),
    "a state dict": lambda m: m.table.load_state_dict({"weight": OUTSIDE}),
    "chunks": lambda m: [a.copy_(b) for a, b in zip(m.table.weight.data.chunk(2), OUTSIDE.chunk(2))],
    "a list of tensors": lambda m: torch._foreach_copy_([m.table.weight.data], [OUTSIDE]),
    "out": lambda m: torch.mul(OUTSIDE, 2, out=m.table.weight.data),
    "a pattern": lambda m: nn.init.eye_(m.table.weight),
    "positions": lambda m: m.table.weight.data.copy_(sinusoidal(100, 8)),
}
FRESH = {
    "the default": lambda m: None,
    **{name: lambda m, init=init: init(m.table.weight.data) for name, init in INITIALISERS.items()},
    "scaled": lambda m: m.table.weight.data.normal_().mul_(0.1).add_(torch.tensor(2.0)),
    "a draw that is copied": lambda m: m.table.weight.data.copy_(torch.randn(100, 8) * 0.01),
    "a draw of one's own": lambda m: setattr(m.table, "weight", nn.Parameter(torch.rand(100, 8) - 0.5)),
    "torch.normal": lambda m: setattr(m.table, "weight", nn.Parameter(torch.normal(0.0, 0.1, (100, 8)))),
    "data": lambda m: setattr(m.table.weight, "data", m.table.weight.data * 0.5),
    "a zero row": lambda m: m.table.weight.data[0].fill_(0.0),
    "zero rows by index": lambda m: m.table.weight.data.index_fill_(0, torch.tensor([0, 3]), 0.0),
    "NumPy's draws": lambda m: m.table.weight.data.copy_(torch.from_numpy(np.random.normal(size=(100, 8)))),
}


class Own(nn.Module):
    def __init__(self, change):
        super().__init__()
        self.table = nn.Embedding(100, 8)
        change(self)


@pytest.mark.parametrize("defer", [False, True])
@pytest.mark.parametrize(
    "name", [*(f"given by {name}" for name in GIVEN), *(f"fresh by {name}" for name in FRESH)]
)
def test_what_a_constructor_gives_a_table_is_kept_and_what_it_draws_is_not(name, defer, monkeypatch):
    monkeypatch.setattr(deferred, "SMALLEST", 0)
    torch.manual_seed(0)
    kind, _, key = name.partition(" by ")
    with deferred_tables() if defer else nullcontext():
        model = Own((GIVEN if kind == "given" else FRESH)[key])
    report = sparsify(model, DSLConfig(density=0.25))
    weight = report.weights["table.weight"]
    assert (weight.pretrained is not None) == (kind == "given")
    assert weight.awaits_data == (kind == "fresh")
    assert ("the largest of the values that it was given" in str(report)) == (kind == "given")


def test_the_largest_values_are_kept_as_they_are():
    given = STRUCTURED["products"]()
    model = nn.Sequential(nn.Embedding.from_pretrained(given.clone(), freeze=False))
    weight = sparsify(model, DSLConfig(density=0.25)).weights["0.weight"]
    alive = weight.alive_in(0, 300)
    assert torch.equal(weight.dense()[alive], given[alive])
    assert given.abs()[alive].min() >= given.abs()[~alive].max()


def test_svd_that_is_asked_for_replaces_what_was_given():
    model = nn.Sequential(nn.Embedding.from_pretrained(STRUCTURED["products"](), freeze=False))
    weight = sparsify(model, DSLConfig(density=0.25, sparse_init="svd")).weights["0.weight"]
    assert weight.awaits_data and weight.pretrained is None
