import copy
import inspect

import pytest
import torch
from torch import nn

from recbole_dsl import DSLConfig, DSLError, sparsify
from recbole_dsl.sparse.modules import SparseEmbedding, sparse_weights
from recbole_dsl.sparse.weight import SparseWeight
from tests.toy import Toy, exchange_at


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = Toy(torch.float32)
    sparsify(model, DSLConfig(density=0.5))
    return model


def test_embedding_is_a_drop_in(model):
    item = model.item
    assert isinstance(item, nn.Embedding) and isinstance(item, SparseEmbedding)
    assert (item.num_embeddings, item.embedding_dim, item.padding_idx) == (15, 6, 0)
    ids = torch.tensor([[1, 0], [3, 1]])
    assert torch.equal(item(ids), item.weight[ids])
    assert item.weight[0].abs().sum() == 0, "the padding row is empty"


def test_embedding_from_a_weight():
    dense = torch.randn(4, 3)
    embedding = SparseEmbedding(SparseWeight.of(dense, torch.arange(12)))
    assert torch.equal(embedding(torch.tensor([2, 2])), dense[[2, 2]])


def test_writing_into_the_dense_view_raises(model):
    for weight in (model.user.weight, model.layer.weight, model.kernel):
        with pytest.raises(DSLError, match="lost"):
            weight.data.transpose(0, 1).mul_(2)


def test_a_lost_write_names_the_line_that_would_do_it(model):
    line = inspect.currentframe().f_lineno + 2
    with pytest.raises(DSLError, match=rf"test_modules\.py:{line}: \w+_ would write"):
        nn.init.xavier_normal_(model.user.weight)


def test_reading_the_dense_view_gives_plain_tensors(model):
    for result in (model.user.weight * 2, torch.cat([model.user.weight, model.item.weight]), model.kernel.sum()):
        assert type(result) is torch.Tensor
        result.add_(1)
    other = torch.zeros(12, 6)
    other.copy_(model.user.weight)
    assert torch.equal(other, model.user.weight)


def test_the_tensor_cannot_be_replaced(model):
    with pytest.raises(DSLError, match="weight of SparseEmbedding is sparse"):
        model.user.weight = nn.Parameter(torch.zeros(12, 6))
    with pytest.raises(DSLError, match="kernel of Toy is sparse"):
        model.kernel = torch.zeros(6, 2, 3)


@pytest.mark.parametrize("ids", [[1, 2, 1], [1, 2, 1, 3, 3]], ids=["a few rows", "more look-ups than rows"])
def test_a_full_embedding_trains_its_padding_row_as_pytorch_does(ids):
    torch.manual_seed(0)
    dense = nn.Embedding(4, 3, padding_idx=1)
    nn.init.normal_(dense.weight)
    sparse = copy.deepcopy(dense)
    weight = sparsify(sparse, DSLConfig(density=1.0)).weights["weight"]
    ids, upstream = torch.tensor(ids), torch.randn(len(ids), 3)
    for module in (dense, sparse):
        (module(ids) * upstream).sum().backward()
        (module.weight * torch.arange(12.0).view(4, 3)).sum().backward()
    assert torch.equal(sparse(ids), dense(ids))
    assert torch.allclose(weight.values.grad.view(4, 3), dense.weight.grad)


def test_parameters_have_the_names_of_the_dense_ones():
    model = nn.Sequential(Toy(torch.float32), nn.Linear(3, 3))
    names = [name for name, _ in model.named_parameters()]
    sparsify(model, DSLConfig(density=0.5))
    assert sorted(name for name, _ in model.named_parameters()) == sorted(names)
    assert [name for name, _ in model[0].layer.named_parameters()] == ["bias", "weight"]


def test_a_view_is_a_parameter_to_who_asks_and_what_is_made_of_it_is_not(model):
    assert isinstance(model.kernel, nn.Parameter)
    assert not isinstance(model.kernel[0], nn.Parameter) and not isinstance(model.kernel * 2, nn.Parameter)


def test_classes_keep_their_name_and_kind(model):
    assert type(model).__name__ == "Toy" and isinstance(model, Toy) and isinstance(model.layer, nn.Linear)


def test_a_copy_is_independent(model):
    other = copy.deepcopy(model)
    weight = sparse_weights(other)["user.weight"]
    exchange_at(weight, [0], [])
    assert weight.nnz == sparse_weights(model)["user.weight"].nnz - 1


def test_state_dict_holds_only_the_sparse_form(model):
    state = model.state_dict()
    assert {"user.weight.values", "user.weight.columns", "user.weight.row_offsets"} <= set(state)
    assert "user.weight" not in state
    restored = Toy(torch.float32)
    sparsify(restored, DSLConfig(density=0.5, seed=1))
    restored.load_state_dict(state)
    ids = torch.tensor([1, 2])
    assert torch.equal(restored(ids, ids), model(ids, ids))


def test_lists_and_dictionaries_of_parameters():
    class Lists(nn.Module):
        def __init__(self):
            super().__init__()
            self.items = nn.ParameterList([nn.Parameter(torch.randn(4, 5)) for _ in range(2)])
            self.named = nn.ParameterDict({"a": nn.Parameter(torch.randn(5, 3))})

    model = Lists()
    before = [p.detach().clone() for p in model.items]
    report = sparsify(model, DSLConfig(density=1.0))
    assert set(report.weights) == {"items.0", "items.1", "named.a"}
    assert all(torch.equal(a, b) for a, b in zip(model.items, before))
    assert model.named["a"].shape == (5, 3)


def test_attention_and_convolution_work():
    attention = nn.MultiheadAttention(8, 2, batch_first=True)
    convolution = nn.Conv2d(1, 3, 2)
    x = torch.randn(2, 4, 8)
    expected = attention(x, x, x)[0], convolution(x.unsqueeze(1))
    for module in (attention, convolution):
        sparsify(module, DSLConfig(density=1.0))
    assert torch.allclose(attention(x, x, x)[0], expected[0], atol=1e-6)
    assert torch.allclose(convolution(x.unsqueeze(1)), expected[1], atol=1e-6)
