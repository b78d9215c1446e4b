"""A sparse model among PyTorch's own tools: copies, files, processes, dtypes, the compiler, plain tensors."""

import copy
import io
import pickle

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from torch import nn

from recbole_dsl import DSLConfig, DSLError, DynamicTopology, parameter_groups, sparse_weights, sparsify
from tests.toy import Toy, alive_positions, exchange_at, toy_batch, toy_loss


class Shared(nn.Module):
    """A tied table, attention, which has a way of its own to be unpickled, and sparse weights in a list."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(15, 6, padding_idx=0)
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)
        self.output = nn.Linear(6, 15, bias=False)
        self.output.weight = self.table.weight
        self.both = nn.ParameterList([nn.Parameter(torch.randn(6, 5)) for _ in range(2)])

    def forward(self, items):
        hidden = self.table(items)
        return self.output(self.attention(hidden, hidden, hidden)[0]), hidden @ self.both[0] * (
            hidden @ self.both[1]
        )


def through_a_file(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


COPIES = {
    "pickle": lambda m: pickle.loads(pickle.dumps(m)),
    "torch.save": through_a_file,
    "deepcopy": copy.deepcopy,
}


@pytest.mark.parametrize("make", COPIES.values(), ids=COPIES)
@pytest.mark.parametrize("kind", [Toy, Shared])
def test_a_copy_is_the_same_model_and_shares_nothing(make, kind):
    torch.manual_seed(0)
    model = kind()
    sparsify(model, DSLConfig(density=0.5))
    weights = sparse_weights(model)
    items = torch.tensor([[1, 2, 0], [3, 3, 1]])
    run = (lambda m: m(items)[0]) if kind is Shared else (lambda m: m(items % 12, items))
    run(model).sum().backward()
    for weight in weights.values():
        weight.reader.gradient_sink = lambda ids, gradient: pytest.fail("a copy told who watches the original")
        weight.reader.keeps_dense = True
    made = make(model)
    for weight in weights.values():
        weight.reader.gradient_sink, weight.reader.keeps_dense = None, False
    assert [type(m) for m in made.modules()] == [type(m) for m in model.modules()]
    assert [n for n, _ in made.named_parameters()] == [n for n, _ in model.named_parameters()]
    assert torch.equal(run(made), run(model))
    storages = {t.untyped_storage().data_ptr() for t in model.state_dict().values()}
    assert not storages & {t.untyped_storage().data_ptr() for t in made.state_dict().values()}
    if kind is Shared:
        assert made.output._modules["weight"] is made.table._modules["weight"]
    expected = [weight.dense() for weight in weights.values()]
    run(made).sum().backward()
    for weight in sparse_weights(made).values():
        exchange_at(weight, [0], [])
    assert all(torch.equal(a, weight.dense()) for a, weight in zip(expected, weights.values()))
    with pytest.raises(DSLError, match="sparse and cannot be assigned to"):
        if kind is Shared:
            made.output.weight = None
        else:
            made.kernel = None


def test_a_copy_in_the_middle_of_training_does_not_change_the_training():
    ends = []
    for copies in (False, True):
        torch.manual_seed(0)
        model, config = Toy(), DSLConfig(density=0.3, update_interval=4, grow_window=4)
        report = sparsify(model, config)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        DynamicTopology(report.weights, config, total_steps=20).attach(optimizer)
        generator = torch.Generator().manual_seed(0)
        for _ in range(12):
            batch = toy_batch(generator)
            if copies:
                toy_loss(copy.deepcopy(model), batch).mul(1000).backward()
            optimizer.zero_grad()
            toy_loss(model, batch).backward()
            optimizer.step()
        ends.append(model.state_dict())
    assert all(torch.equal(ends[0][key], ends[1][key]) for key in ends[0])


def test_a_model_and_its_optimizer_in_one_file_stay_together():
    model = Toy()
    sparsify(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    model, optimizer = pickle.loads(pickle.dumps((model, optimizer)))
    before = model.user.weight.detach()
    toy_loss(model, toy_batch(torch.Generator())).backward()
    optimizer.step()
    assert not torch.equal(before, model.user.weight)


def _in_a_process(rank, model, results):
    with torch.no_grad():
        results[rank] = model(torch.tensor([1, 2]), torch.tensor([3, 0])).tolist()
        model.layer.bias.fill_(7)
        for weight in sparse_weights(model).values():
            weight.values.fill_(7)


def test_shared_memory():
    model = Toy()
    sparsify(model, DSLConfig(density=0.5))
    assert model.share_memory() is model
    assert all(tensor.is_shared() for tensor in model.state_dict().values())


def test_a_process_gets_the_model_and_its_memory():
    model = Toy()
    sparsify(model, DSLConfig(density=0.5))
    with torch.no_grad():
        expected = model(torch.tensor([1, 2]), torch.tensor([3, 0])).tolist()
    with mp.Manager() as manager:
        results = manager.dict()
        mp.spawn(_in_a_process, args=(model, results), nprocs=1)
        assert results[0] == expected
    # PyTorch hands tensors over in shared memory, as of dense models
    assert all((weight.values == 7).all() for weight in sparse_weights(model).values())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_to_another_dtype_and_back(dtype):
    dense = Toy()
    model = copy.deepcopy(dense)
    weights = sparsify(model, DSLConfig(density=0.5)).weights
    index = {name: (w.columns.dtype, w.row_offsets.dtype) for name, w in weights.items()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model.to(dtype)
    for name, weight in weights.items():
        assert weight.values.dtype == weight.dense().dtype == dtype
        assert (weight.columns.dtype, weight.row_offsets.dtype) == index[name]
    model.double()
    toy_loss(model, toy_batch(torch.Generator())).backward()
    before = model.user.weight.detach()
    optimizer.step()
    assert not torch.equal(model.user.weight, before), "the optimizer has the parameters still"


def test_to_the_meta_device_and_back():
    model = Toy()
    sparsify(model)
    state = model.state_dict()
    empty = copy.deepcopy(model).to("meta").to_empty(device="cpu")
    empty.load_state_dict(state)
    assert torch.equal(empty.user.weight, model.user.weight)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_compiled_model_gives_what_the_model_gives(backend):
    torch.manual_seed(0)
    torch.compiler.reset()
    model, config = Toy(), DSLConfig(density=0.3, update_interval=2, grow_window=1, budget="global")
    twin = copy.deepcopy(model)
    runs = []
    for one in (model, twin):
        report = sparsify(one, config)
        optimizer = torch.optim.Adam(one.parameters(), lr=0.01)
        topology = DynamicTopology(report.weights, config, total_steps=20)
        topology.attach(optimizer)
        runs.append((torch.compile(one, backend=backend) if one is model else one, one, optimizer, topology))
    generator = torch.Generator().manual_seed(0)
    for n in (64, 64, 64, 3, 5, 64, 64):
        batch, losses = toy_batch(generator, n), []
        for callable_, _, optimizer, _ in runs:
            optimizer.zero_grad()
            loss = toy_loss(callable_, batch)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[0] == pytest.approx(losses[1], rel=1e-9)
    assert len(runs[0][3].updates) == 3 and runs[0][3].updates == runs[1][3].updates
    assert all(torch.equal(a.columns, b.columns) for a, b in zip(*(sparse_weights(r[1]).values() for r in runs)))
    # under no_grad, with what an evaluation keeps
    with torch.no_grad(), sparse_weights(model)["kernel"].dense_kept():
        batch = toy_batch(generator)[:2]
        assert torch.allclose(runs[0][0](*batch), runs[1][0](*batch))
        assert torch.allclose(runs[0][0](*batch), runs[1][0](*batch))


class WholeTable(nn.Module):
    def __init__(self):
        super().__init__()
        self.item = nn.Embedding(30, 4)
        self.layer = nn.Linear(4, 4)

    def forward(self, ids):
        return self.layer(self.item(ids)) @ self.item.weight.t(), self.item.weight.detach()[ids]


def test_a_compiled_whole_table_read():
    torch.compiler.reset()
    model = WholeTable()
    weights = sparsify(model, DSLConfig(density=0.5)).weights
    compiled = torch.compile(model, backend="inductor")
    for n in (3, 7):
        ids = torch.arange(n)
        gradients = []
        for run in (model, compiled):
            scores, rows = run(ids)
            model.zero_grad()
            scores.pow(2).sum().backward()
            gradients.append([scores, rows, *(p.grad.clone() for p in model.parameters())])
        assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(*gradients))
        weight = weights["item.weight"]
        free = (~weight.alive_in(0, 30)).view(-1).nonzero().view(-1).tolist()
        exchange_at(weight, [0, 1], free[:2])


def test_a_compiled_function_of_the_dense_view():
    torch.compiler.reset()
    model = WholeTable()
    sparsify(model, DSLConfig(density=0.5))
    score = torch.compile(lambda row, table: row @ table.t() + table.sum(1), backend="eager")
    row, table = torch.randn(4), model.item.weight
    assert torch.allclose(score(row, table), row @ table.t() + table.sum(1))
    assert torch.allclose(score(row, table.detach()), row @ table.t() + table.sum(1))
    score(row, table).sum().backward()
    assert model.item._modules["weight"].values.grad.abs().sum() > 0
    with pytest.raises(DSLError, match="lost"):
        torch.compile(lambda table: table.mul_(2), backend="eager")(table.detach())


@pytest.fixture
def weight():
    """Of a model, the dense view."""
    model = WholeTable()
    sparsify(model, DSLConfig(density=0.5))
    return model.item.weight


def plain(tensor, kind):
    return type(tensor) is kind and not vars(tensor)


@pytest.mark.parametrize("detach", [True, False])
def test_a_parameter_made_of_a_view_is_the_users_own(weight, detach):
    given = weight.detach() if detach else weight
    parameter = nn.Parameter(given)
    frozen = nn.Parameter(given, requires_grad=False)
    assert plain(parameter, nn.Parameter) and parameter.is_leaf and parameter.requires_grad
    assert plain(frozen, nn.Parameter) and not frozen.requires_grad and torch.equal(frozen, weight)
    embedding = nn.Embedding.from_pretrained(given.clone(), freeze=False)
    expected = weight.detach().clone() - 0.1
    assert plain(embedding.weight, nn.Parameter)
    optimizer = torch.optim.Adam([*embedding.parameters(), parameter], lr=0.1)
    (embedding(torch.arange(30)).sum() + parameter.sum()).backward()
    optimizer.step()
    for trained in (embedding.weight, parameter):
        assert torch.allclose(trained, expected, atol=1e-5)
        nn.init.zeros_(trained)
        trained.data.add_(1)


@pytest.mark.parametrize(
    "take",
    [
        lambda w: w.detach(),
        lambda w: w.data,
        lambda w: w.data[3:],
        lambda w: w.detach().t(),
        lambda w: w.cpu().detach(),
        lambda w: w,
    ],
)
def test_what_is_saved_or_copied_of_a_view_is_plain(weight, take):
    taken = take(weight)
    file = io.BytesIO()
    torch.save({"table": taken}, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=True)["table"]
    made = [loaded, pickle.loads(pickle.dumps(taken))]
    if not taken.requires_grad:
        made += [copy.copy(taken), copy.deepcopy(taken), taken.clone()]
        assert np.array_equal(taken.numpy(), np.asarray(taken))
        assert type(torch.from_numpy(taken.numpy())) is torch.Tensor
    for one in made:
        assert plain(one, torch.Tensor) and torch.equal(one, taken) and not isinstance(one, nn.Parameter)


def test_what_is_registered_of_a_view_is_plain_in_the_model_and_its_file(weight):
    model = nn.Module()
    model.register_parameter("given", nn.Parameter(weight.detach()))
    model.register_buffer("kept", weight.detach().clone())
    assert all(plain(t, torch.Tensor) for t in model.state_dict().values())
    assert all(
        plain(t, kind) for t, kind in ((copy.deepcopy(model).given, nn.Parameter), (model.kept, torch.Tensor))
    )


@pytest.mark.parametrize("config", [DSLConfig(), DSLConfig(exclude=("0",))])
def test_what_has_no_shape_yet_is_refused_in_one_line(config):
    model = nn.Sequential(nn.LazyLinear(4), nn.Linear(4, 4))
    with pytest.raises(DSLError, match=r"^0\.weight: has no shape yet; run .*$"):
        sparsify(model, config)
    model(torch.randn(2, 3))
    assert sparsify(model, config).nnz


def test_groups_for_weight_decay():
    model = Shared()
    model.norm = nn.LayerNorm(6)
    model.norm.bias.requires_grad_(False)
    dense = parameter_groups(model, 0.1)
    names = [{id(p): n for n, p in model.named_parameters()}[id(p)] for g in dense for p in g["params"]]
    sparsify(model, DSLConfig(exclude=("both.0",)))
    groups = parameter_groups(model, 0.1)
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0]
    by_id = {id(p): n for n, p in model.named_parameters()}
    assert sorted(by_id[id(p)] for group in groups for p in group["params"]) == sorted(names)
    assert "both.0" in {by_id[id(p)] for p in groups[0]["params"]}
    assert {by_id[id(p)] for p in groups[1]["params"]} == {
        "attention.in_proj_bias",
        "attention.out_proj.bias",
        "norm.weight",
    }
    assert len(parameter_groups(model, 0.0)) == 1 == len(parameter_groups(nn.Linear(2, 2, bias=False), 0.1))
    torch.optim.AdamW(groups, lr=0.1)


def test_positions_of_a_copy_are_its_own():
    model = Toy()
    sparsify(model, DSLConfig(density=0.5))
    weight = sparse_weights(model)["user.weight"]
    before = alive_positions(weight)
    exchange_at(sparse_weights(copy.deepcopy(model))["user.weight"], [0], [])
    assert alive_positions(weight) == before
