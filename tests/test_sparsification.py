import pytest
import torch
from torch import nn

from recbole_dsl import DSLConfig, DSLError, sparsify
from recbole_dsl.sparse.modules import sparse_weights
from tests.toy import Toy


class Mixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(20, 10)
        self.clipped = nn.Embedding(20, 10, max_norm=1.0)
        self.frozen = nn.Embedding(20, 10)
        self.frozen.weight.requires_grad_(False)
        self.recurrent = nn.GRU(10, 10)
        self.norm = nn.LayerNorm(10)
        self.output = nn.Linear(10, 20)
        self.output.weight = self.table.weight


def test_the_report_says_what_became_sparse_and_why_the_rest_did_not():
    report = sparsify(Mixed(), DSLConfig(density=0.1))
    assert list(report.weights) == ["table.weight"]
    reasons = {name: reason.split(":")[0] for name, (_, reason) in report.dense.items()}
    assert reasons == {
        "clipped.weight": "max_norm writes into the rows",
        "frozen.weight": "not trained",
        **{f"recurrent.weight_{k}_l0": "recurrent" for k in ("ih", "hh")},
        **{f"recurrent.bias_{k}_l0": "one-dimensional" for k in ("ih", "hh")},
        "norm.weight": "one-dimensional",
        "norm.bias": "one-dimensional",
        "output.bias": "one-dimensional",
    }
    text = str(report)
    assert "table.weight" in text and "20 x 10, 20 alive, 0.1000" in text
    assert text.startswith("trainable weights: 920 || dense model: 1,100 || density")


def test_tied_weights_stay_tied():
    model = Mixed()
    sparsify(model, DSLConfig(density=0.5))
    assert model.output._modules["weight"] is model.table._modules["weight"]
    assert [n for n, p in model.named_parameters() if p.shape == (100,)] == ["table.weight"]


def test_the_alive_weights_keep_their_value():
    torch.manual_seed(0)
    model = Toy()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    report = sparsify(model, DSLConfig(density=0.4))
    for name, weight in report.weights.items():
        alive = weight.dense().detach()
        assert torch.equal(alive, before[name] * (alive != 0))


def test_density_one_changes_no_value_and_draws_no_random_number():
    torch.manual_seed(0)
    model, state = Toy(), torch.get_rng_state()
    model.item.weight.data[0] = 3.0
    before = model.user.weight.detach().clone(), model.item.weight.detach().clone()
    sparsify(model, DSLConfig(density=1.0))
    assert torch.equal(model.user.weight, before[0]) and torch.equal(model.item.weight, before[1])
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    "targets, exclude, chosen",
    [
        (None, (), {"kernel", "user.weight", "item.weight", "layer.weight"}),
        (["user"], (), {"user.weight"}),
        (["user.weight", "layer"], (), {"user.weight", "layer.weight"}),
        ("*.weight", "item", {"user.weight", "layer.weight"}),
        (None, "us*,kernel", {"item.weight", "layer.weight"}),
    ],
)
def test_targets_and_exclude_choose_by_name_or_pattern(targets, exclude, chosen):
    report = sparsify(Toy(), DSLConfig(targets=targets, exclude=exclude))
    assert set(report.weights) == chosen
    for name in {"kernel", "user.weight", "item.weight", "layer.weight"} - chosen:
        assert report.dense[name][1] in ("excluded", "not among the targets")


def test_a_weight_of_one_row_stays_dense_unless_it_is_named():
    # the weights of a unit that it does not read would have no gradient
    def model():
        return nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 1), nn.Embedding(9, 1))

    report = sparsify(model(), DSLConfig(density=0.5))
    assert set(report.weights) == {"0.weight", "2.weight"}
    assert report.dense["1.weight"] == (8, "a single row")
    assert set(sparsify(model(), DSLConfig(density=0.5, targets="1")).weights) == {"1.weight"}
    with pytest.raises(DSLError, match="model=Linear: no trainable weight of two or more rows"):
        sparsify(nn.Linear(4, 1))


def test_a_modules_name_stands_for_all_that_is_in_it():
    model = nn.Sequential(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4)), nn.Linear(4, 3))
    assert set(sparsify(model, DSLConfig(density=0.5, targets="0")).weights) == {"0.0.weight", "0.1.weight"}


@pytest.mark.parametrize(
    "model, options, message",
    [
        (Toy, {"targets": "nothing"}, "targets=nothing: must match one of kernel, user.weight"),
        (Toy, {"targets": ["user", "nothing"]}, "targets=nothing"),
        (Toy, {"exclude": ["item", "usr"]}, "exclude=usr: must match one of kernel, user.weight"),
        (Mixed, {"targets": "clipped.weight"}, "targets=clipped.weight: it cannot be sparse"),
        (Toy, {"exclude": "*"}, r"exclude=\*: no trainable weight"),
        (Toy, {"density": 1e-6}, "density=1e-06 leaves kernel no weight"),
        (lambda: nn.LayerNorm(3), {}, "model=LayerNorm: no trainable weight"),
    ],
)
def test_what_cannot_be_done_is_refused_and_the_model_left_alone(model, options, message):
    model = model()
    names = [name for name, _ in model.named_parameters()]
    with pytest.raises(DSLError, match=message):
        sparsify(model, DSLConfig(**options))
    assert [name for name, _ in model.named_parameters()] == names


def test_a_second_call_changes_nothing():
    model = Toy()
    first = sparsify(model, DSLConfig(density=0.3, targets="user"))
    second = sparsify(model, DSLConfig(density=0.9, targets="user"))
    assert second.weights == first.weights and second.nnz == first.nnz
    assert second.dense == first.dense


def test_no_dense_tensor_is_left():
    model = Toy()
    largest = max(p.numel() for p in model.parameters())
    sparsify(model, DSLConfig(density=0.2))
    assert max(t.numel() for t in model.state_dict().values()) < largest / 2
    assert len(sparse_weights(model)) == 4
