"""Tables that are made sparse from the record of their initialisation, against the ones made dense."""

import copy
from contextlib import nullcontext

import pytest
import torch
from torch import nn

from recbole_dsl import DSLConfig, DSLError, deferred_tables, sparsify
from recbole_dsl.sparse import deferred
from recbole_dsl.sparse.deferred import DeferredTensor
from tests.sparse.writes import FEW, NARROW, WRITES

ROWS, WIDTH = 2000, 20


@pytest.fixture(autouse=True)
def every_matrix(monkeypatch):
    monkeypatch.setattr(deferred, "SMALLEST", 0)


def table(initialise, **options):
    embedding = nn.Embedding(ROWS, WIDTH, **options)
    initialise(embedding)
    return embedding


def on_data(name, *arguments, **options):
    return lambda embedding: getattr(nn.init, name)(embedding.weight.data, *arguments, **options)


ALIKE = {
    "the default": lambda embedding: None,
    "xavier_normal_": on_data("xavier_normal_"),
    "xavier_uniform_": on_data("xavier_uniform_"),
    "normal_": on_data("normal_", 1.0, 0.1),
    "uniform_": lambda embedding: embedding.weight.data.uniform_(-0.3, 0.1),
    "kaiming_uniform_": on_data("kaiming_uniform_"),
    "scaled, shifted and clipped": lambda e: e.weight.data.normal_().mul_(0.5).add_(0.2).clamp_(-1.0, 1.0),
    "constant_": on_data("constant_", 3.0),
}


@pytest.mark.parametrize("name", ALIKE)
@pytest.mark.parametrize("padding", [None, 7])
def test_the_alive_entries_alone_have_the_distribution_of_the_initialiser(name, padding, caplog):
    caplog.set_level("INFO")
    torch.manual_seed(0)
    with deferred_tables():
        model = table(ALIKE[name], padding_idx=padding)
    assert isinstance(model.weight, DeferredTensor) and isinstance(model.weight, nn.Parameter)
    values = sparsify(model, DSLConfig(density=0.5)).weights["weight"].values.detach()
    reference = table(ALIKE[name], padding_idx=padding).weight.detach()
    reference = reference[[row for row in range(ROWS) if row != padding]].reshape(-1)
    marks = torch.linspace(0.01, 0.99, 15)
    spread = max(float(reference.std()), 1e-6)
    assert (values.quantile(marks) - reference.quantile(marks)).abs().max() < 0.1 * spread
    assert not caplog.records, "no dense table was made"


OTHERS = {
    "orthogonal_": on_data("orthogonal_"),
    "trunc_normal_": on_data("trunc_normal_", 0.0, 1.0, 5.0, 6.0),
    "copy_": lambda embedding: embedding.weight.data.copy_(torch.arange(ROWS * WIDTH).view(ROWS, WIDTH)),
    "one row": lambda embedding: embedding.weight.data[3].fill_(5.0),
    "read": lambda embedding: embedding.weight.data.mul_(embedding.weight.data.abs().sum()),
    "a view": lambda embedding: embedding.weight.data.t()[2:4].add_(9.0),
}


@pytest.mark.parametrize("name", OTHERS)
def test_any_other_initialisation_is_done_on_the_dense_table(name, caplog):
    caplog.set_level("INFO")
    with deferred_tables():
        model = nn.Sequential(table(OTHERS[name]), table(OTHERS[name]))
    report = sparsify(model, DSLConfig(density=0.5))
    dense = report.weights["1.weight"].dense().detach()
    alive = dense != 0
    assert 0.4 < alive.float().mean() < 0.6
    if name == "orthogonal_":
        assert dense.std() == pytest.approx((0.5 / ROWS) ** 0.5, rel=0.1)
    elif name == "trunc_normal_":
        assert dense[alive].min() >= 5
    elif name == "copy_":
        assert torch.equal(dense, torch.arange(ROWS * WIDTH).view(ROWS, WIDTH) * alive)
    elif name == "one row":
        assert set(dense[3].unique().tolist()) == {0.0, 5.0}
    elif name == "read":
        assert dense.abs().mean() > 1000
    else:
        assert dense[:, 2:4][alive[:, 2:4]].min() > 3 > dense[:, 4:].mean()
    made = [record.getMessage() for record in caplog.records]
    # some versions of PyTorch draw a truncated distribution entry by entry
    if name != "trunc_normal_":
        assert made == [f"{i}.weight is made dense for its initialisation" for i in (0, 1)]


def test_a_start_by_magnitude_keeps_the_largest_of_what_was_drawn():
    with deferred_tables():
        model = table(ALIKE["normal_"])
    values = sparsify(model, DSLConfig(density=0.1, sparse_init="magnitude")).weights["weight"].values
    assert values.abs().min() > 1.12, "the tenth above mean + 1.28 deviations"


class Mixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.tied = nn.Embedding(50, 20), nn.Linear(20, 50)
        self.tied.weight = self.table.weight
        self.recurrent = nn.GRU(20, 20)
        self.frozen = nn.Embedding.from_pretrained(torch.ones(30, 20))
        self.copied = copy.deepcopy(self.table)

    def forward(self, ids):
        return self.tied(self.recurrent(self.table(ids) + self.copied(ids))[0])


def test_what_stays_dense_is_made_and_what_is_tied_stays_tied():
    with deferred_tables():
        model = Mixed()
    report = sparsify(model, DSLConfig(density=0.3, exclude="copied"))
    weight = report.weights["table.weight"]
    assert len(report.weights) == 1 and model.tied._modules["weight"] is weight
    assert not any(isinstance(tensor, DeferredTensor) for tensor in model.parameters())
    alive = weight.dense() != 0
    assert alive.sum() == 300 and torch.equal(weight.dense()[alive], model.copied.weight[alive])
    model(torch.arange(5)).sum().backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


def test_small_tables_are_made_as_usual(monkeypatch):
    monkeypatch.setattr(deferred, "SMALLEST", ROWS * WIDTH)
    with deferred_tables():
        model = nn.Sequential(nn.Embedding(ROWS, WIDTH), nn.Embedding(ROWS - 1, WIDTH))
    assert [isinstance(module.weight, DeferredTensor) for module in model] == [True, False]
    assert not isinstance(nn.Embedding(ROWS, WIDTH).weight, DeferredTensor)


@pytest.mark.parametrize("name", WRITES)
def test_every_write_is_seen(name):
    found = []
    for defer in (False, True):
        with deferred_tables() if defer else nullcontext():
            model = nn.Sequential(nn.Embedding(FEW, NARROW))
            model[0].weight.data.fill_(-0.5)
            assert isinstance(model[0].weight, DeferredTensor) == defer
            WRITES[name](model[0].weight)
        sparsify(model, DSLConfig(density=1.0))
        found.append(model[0].weight.detach())
    assert torch.equal(*found) and not (found[0] == -0.5).all()


@pytest.mark.parametrize(
    "write",
    [
        lambda w: setattr(w, "data", w.data.double()),
        lambda w: setattr(w, "data", torch.zeros(3, 3)),
        lambda w: w.data.t_(),
        lambda w: w.data.resize_(3, 3),
        lambda w: w.data.unsqueeze_(0),
        lambda w: w.data.as_strided_((FEW * NARROW,), (1,)),
    ],
)
def test_another_form_in_place_is_refused(write):
    with deferred_tables(), pytest.raises(DSLError, match=r"test_deferred.py:\d+: \w+ would change the shape"):
        write(nn.Embedding(FEW, NARROW).weight)


@pytest.mark.parametrize(
    "write",
    [
        lambda w: w.data.set_(torch.zeros(FEW, NARROW)),
        lambda w: w.detach().set_(torch.zeros(FEW, NARROW)),
        lambda w: setattr(w.data, "data", torch.zeros(FEW, NARROW)),
        lambda w: w.data[3].set_(torch.zeros(NARROW)),
    ],
)
def test_other_memory_for_what_is_only_a_view_of_it_is_refused(write):
    with deferred_tables(), pytest.raises(DSLError, match=r"test_deferred.py:\d+: \w+ would change what .data"):
        write(nn.Embedding(FEW, NARROW).weight)


def test_buffers_and_other_tensors_are_made():
    model = nn.Sequential(nn.Embedding(20, 4))
    with deferred_tables():
        model.register_buffer("features", torch.empty((50, 20)).fill_(2.0))
        model.noise = torch.empty((50, 20)).normal_()
        required = torch.empty((50, 20), requires_grad=True)
    assert type(required) is torch.Tensor and required.requires_grad
    sparsify(model, DSLConfig(density=0.5))
    assert type(model.features) is type(model.noise) is torch.Tensor
    assert (model.features == 2).all() and model.noise.std() > 0.5
