"""Propagation matrices: the products and gradients of torch.sparse.mm, and RecBole's graph models unchanged."""

import copy
import io

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from recbole.utils import get_trainer, init_seed
from torch import nn

from benchmarks.model_cases import CASES, model_of
from recbole_dsl import DSLConfig, sparsify
from recbole_dsl.graphs.propagation import PropagationMatrix, compress_graphs, has_graphs
from recbole_dsl.sparse.modules import sparse_weights
from tests.running import prepare
from tests.training.test_models import optional_packages, options_of  # noqa: F401

GRAPHS = {
    "LightGCN": ["norm_adj_matrix"],
    "NGCF": ["norm_adj_matrix", "eye_matrix"],
    "SGL": ["train_graph"],
    "NCL": ["norm_adj_mat"],
    "SpectralCF": ["A_hat"],
    # the encoder has the same list
    "GCMC": ["user_features", "item_features", "Graph", "support.0"],
    "GCMC-stack": ["Graph", "support.0"],
    "DGCF": ["edge2head_mat", "head2edge_mat", "tail2edge_mat"],
    "DMF": [],
    "KGAT": ["A_in"],
    "KGAT-gcn": ["A_in"],
    "KGAT-graphsage": ["A_in"],
    "KGIN": ["interact_mat", "gcn.interact_mat"],
    "MCCLK": ["inter_matrix", "inter_graph", "gcn.inter_matrix"],
}
VARIANTS = [
    *((case, {}) for case in GRAPHS),
    ("NGCF", {"node_dropout": 0.2}),
    ("KGIN", {"node_dropout_rate": 0.0}),
    ("MCCLK", {"node_dropout_rate": 0.0}),
    *(("SGL", {"type": kind}) for kind in ("ND", "RW")),
]
# sums in the same order, but vectorised in another way
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


def family_of(case):
    return next(family for family, cases in CASES.items() if case in cases)


def prepared(case, data_path, changes):
    options = {**options_of(family_of(case), case, data_path), "epochs": 2, **changes}
    return prepare(model_of(case), options)


def graph(*shape, nnz=7, seed=0):
    generator = torch.Generator().manual_seed(seed)
    indices = torch.stack([torch.randint(size, (nnz,), generator=generator) for size in shape])
    return torch.sparse_coo_tensor(indices, torch.randn(nnz, generator=generator), shape)


class Propagation(nn.Module):
    """A model with sparse matrices in every place where one may be."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(5, 3)
        self.graph = self.alias = graph(5, 5)
        self.layers = [graph(5, 5, seed=1), graph(5, 5, seed=2)]
        self.pair = (graph(5, 5, seed=3), "label")
        self.by_name = {"likes": graph(5, 5, seed=4)}
        self.ids, self.words = torch.arange(5), ["a", "b"]
        self.half, self.trained = graph(5, 5).half(), graph(5, 5).requires_grad_()
        self.cube = graph(5, 5, 5)
        self.register_buffer("adjacency", graph(5, 5, seed=5))

    def forward(self):
        x = self.embedding.weight
        for matrix in (self.graph, *self.layers, self.pair[0], self.by_name["likes"], self.adjacency):
            x = x + torch.sparse.mm(matrix, x)
        return x


NAMES = ["adjacency", "graph", "alias", "layers.0", "layers.1", "pair.0", "by_name.likes"]


@st.composite
def products(draw):
    """A COO matrix, uncoalesced and with empty rows as it comes, and as many columns as a dense one has rows."""
    n, m = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    entries = st.tuples(st.integers(0, n - 1), st.integers(0, m - 1), st.integers(-8, 8))
    drawn = draw(st.lists(entries, max_size=12))
    if draw(st.booleans()) and n == m:
        drawn += [(column, row, value) for row, column, value in drawn]
    rows, columns, values = zip(*drawn) if drawn else ((), (), ())
    indices = torch.tensor([rows, columns], dtype=torch.long)
    matrix = torch.sparse_coo_tensor(indices, torch.tensor(values, dtype=torch.float) / 3, (n, m))
    dense = torch.randn(m, draw(st.integers(0, 9)), generator=torch.Generator().manual_seed(len(drawn)))
    return draw(st.sampled_from([matrix, matrix.coalesce()])), dense


def product_and_derivatives(factor, dense):
    x = dense.clone().requires_grad_()
    y = torch.sparse.mm(factor, x)
    (first,) = torch.autograd.grad((y**3).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)
    return y.detach(), first.detach(), second


@given(products())
def test_the_product_on_other_devices_is_that_of_the_coo_matrix(drawn):
    matrix, _ = drawn
    compressed = PropagationMatrix(matrix)._rows()
    for rows, stock in ((compressed, matrix), (compressed.transposed, matrix.t())):
        x = torch.randn(rows.shape[1], 3)
        assert torch.allclose(rows.in_csr @ x, torch.sparse.mm(stock, x), **CLOSE)


@given(products())
def test_products_and_gradients_are_those_of_the_coo_matrix(drawn):
    matrix, dense = drawn
    # what is added up, which may cancel out
    sizes = torch.sparse_coo_tensor(matrix._indices(), matrix._values().abs(), matrix.shape)
    ours, stock = (product_and_derivatives(m, dense) for m in (PropagationMatrix(matrix), matrix))
    for one, other, size in zip(ours, stock, product_and_derivatives(sizes, dense.abs())):
        assert ((one - other).abs() <= 1e-5 * size + 1e-6).all()


@pytest.mark.parametrize(
    "multiply",
    [
        torch.sparse.mm,
        torch.mm,
        torch.matmul,
        lambda a, b: a @ b,
        lambda a, b: a.mm(b),
        lambda a, b: a.matmul(b),
    ],
)
def test_every_way_to_multiply_takes_the_compressed_rows(multiply):
    matrix, x = graph(5, 4), torch.randn(4, 3, requires_grad=True)
    y = multiply(PropagationMatrix(matrix), x)
    assert type(y) is torch.Tensor and type(y.grad_fn).__name__ == "_ProductBackward"
    torch.testing.assert_close(y, matrix.to_dense() @ x, **CLOSE)


def test_a_symmetric_matrix_is_its_own_transpose():
    square = graph(5, 5).to_dense()
    assert not is_own_transpose(square.to_sparse())
    assert is_own_transpose((square + square.T).to_sparse())
    assert not is_own_transpose(graph(4, 5))


def is_own_transpose(matrix):
    rows = PropagationMatrix(matrix)._rows()
    return rows.transposed is rows


@pytest.mark.parametrize(
    "operation",
    [
        lambda a: torch.tensor([*a.shape, a._nnz(), a.is_coalesced(), a.device.type == "cpu"]),
        lambda a: a._values(),
        lambda a: a._indices(),
        lambda a: a.coalesce().values(),
        lambda a: a.to_dense(),
        lambda a: a.t().to_dense(),
        lambda a: (a + a).to_dense(),
        lambda a: torch.sparse.sum(a, dim=1).to_dense(),
        lambda a: torch.sparse.softmax(a, dim=1).to_dense(),
        lambda a: torch.sparse.mm(a, a).to_dense(),
        lambda a: torch.mv(a, torch.ones(5)),
        lambda a: a @ torch.ones(5),
        lambda a: torch.addmm(torch.ones(5, 2), a, torch.ones(5, 2)),
        lambda a: torch.ones(2, 5) @ a,
        lambda a: torch.mm(input=a, mat2=torch.ones(5, 2)),
        lambda a: a.double() @ torch.ones(5, 2).double(),
    ],
)
def test_what_is_not_a_product_with_a_float_matrix_is_done_by_pytorch(operation):
    matrix = graph(5, 5)
    torch.testing.assert_close(operation(PropagationMatrix(matrix)), operation(matrix))


@pytest.mark.parametrize("dense", [torch.ones(4, 2), torch.ones(5, 2).double(), torch.ones(5, 2, 2)])
def test_operands_that_do_not_fit_raise_what_they_raised(dense):
    with pytest.raises(RuntimeError) as stock:
        torch.mm(graph(5, 5), dense)
    with pytest.raises(RuntimeError) as ours:
        torch.mm(PropagationMatrix(graph(5, 5)), dense)
    assert str(ours.value) == str(stock.value)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_mixed_precision_has_a_product_of_float32_with_a_gradient(dtype):
    matrix, dense = graph(6, 5), torch.randn(5, 2).to(dtype).requires_grad_()
    with torch.autocast("cpu"):
        y = torch.sparse.mm(PropagationMatrix(matrix), dense)
    torch.testing.assert_close(y, torch.sparse.mm(matrix, dense.float()), **CLOSE)
    (gradient,) = torch.autograd.grad(y.sum(), dense)
    assert gradient.dtype is dtype
    torch.testing.assert_close(gradient.float(), matrix.to_dense().T @ torch.ones(6, 2), rtol=1e-2, atol=1e-2)


def test_the_dense_view_of_a_sparse_weight_is_an_operand():
    embedding = nn.Embedding(5, 3)
    sparsify(embedding, DSLConfig(density=0.5))
    gradients = []
    for matrix in (graph(6, 5), PropagationMatrix(graph(6, 5))):
        y = torch.sparse.mm(matrix, embedding.weight)
        assert type(y) is torch.Tensor
        gradients += torch.autograd.grad((y**2).sum(), list(embedding.parameters()))
    torch.testing.assert_close(gradients[1], gradients[0], **CLOSE)


def test_matrices_are_found_wherever_a_module_holds_them():
    model = Propagation()
    layers, expected = model.layers, model()
    assert compress_graphs(nn.ModuleDict({"part": model})) == [f"part.{name}" for name in NAMES]
    assert model.graph is model.alias and model.layers is layers and model.pair[1] == "label"
    assert all(type(getattr(model, name)) is torch.Tensor for name in ("half", "trained", "cube", "ids"))
    torch.testing.assert_close(model(), expected, **CLOSE)


def test_compressing_twice_changes_nothing():
    model = Propagation()
    compress_graphs(model)
    kind, matrix = type(model), model.graph
    assert compress_graphs(model) == [] and type(model) is kind and model.graph is matrix
    assert (kind.__name__, kind.__qualname__, kind.__module__) == ("Propagation", "Propagation", __name__)


def test_a_model_without_a_graph_stays_as_it_is():
    model = nn.Linear(2, 2)
    assert compress_graphs(model) == [] and type(model) is nn.Linear


def test_later_matrices_are_replaced_at_the_next_forward():
    model = Propagation()
    compress_graphs(model)
    model.graph, model.layers = graph(5, 5, seed=6), []
    model.layers.append(graph(5, 5, seed=7))
    expected = model()
    assert all(type(matrix) is PropagationMatrix for matrix in (model.graph, *model.layers))
    torch.testing.assert_close(model(), expected, **CLOSE)


@pytest.mark.parametrize("sparse_first", [True, False])
def test_graphs_and_sparse_weights_go_together(sparse_first):
    model = Propagation()
    steps = [lambda: sparsify(model, DSLConfig(density=0.5)), lambda: compress_graphs(model)]
    for step in steps if sparse_first else reversed(steps):
        step()
    model.graph = graph(5, 5, seed=6)
    model().sum().backward()
    assert type(model.graph) is PropagationMatrix and list(sparse_weights(model)) == ["embedding.weight"]
    assert all(parameter.grad is not None for parameter in model.embedding.parameters())


def test_a_copy_of_a_model_shares_no_matrix():
    model = Propagation()
    compress_graphs(model)
    expected = model()
    copied = copy.deepcopy(model)
    torch.testing.assert_close(copied(), expected)
    assert type(copied.graph) is PropagationMatrix and copied.graph is copied.alias
    copied.graph._values().zero_()
    torch.testing.assert_close(model(), expected)
    assert not torch.equal(copied(), expected)


def test_state_dict_and_files_hold_plain_matrices():
    model, stock = Propagation(), Propagation()
    compress_graphs(model)
    assert list(model.state_dict()) == list(stock.state_dict()) == ["adjacency", "embedding.weight"]
    assert type(model.state_dict()["adjacency"]) is torch.Tensor
    file = io.BytesIO()
    torch.save(model.graph, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=True)
    assert type(loaded) is torch.Tensor and torch.equal(loaded.to_dense(), stock.graph.to_dense())


def test_a_loaded_state_dict_is_what_is_multiplied_with():
    model, other = Propagation(), Propagation()
    compress_graphs(model)
    model()
    other.adjacency = graph(5, 5, seed=8)
    model.load_state_dict(other.state_dict())
    torch.testing.assert_close(model(), other(), **CLOSE)


@pytest.mark.parametrize("case, changes", VARIANTS)
def test_graph_models_of_recbole_train_and_score_as_before(case, changes, data_path):
    outcomes = []
    for compressed in (False, True):
        config, model, train_data, _, test_data = prepared(case, data_path, changes)
        before = type(model).__name__, list(model.state_dict()), list(model.other_parameter())
        if compressed:
            assert sorted(compress_graphs(model)) == sorted(GRAPHS[case])
        losses = train_stock(config, model, train_data)
        assert before == (type(model).__name__, list(model.state_dict()), list(model.other_parameter()))
        outcomes.append((losses, scores_of(model, train_data, test_data)))
    (stock_losses, stock_scores), (losses, scores) = outcomes
    torch.testing.assert_close(losses, stock_losses, rtol=1e-5, atol=0.0)
    torch.testing.assert_close(scores, stock_scores, rtol=1e-5, atol=1e-5)


def train_stock(config, model, train_data):
    """The losses, by epoch, of RecBole's own trainer."""
    init_seed(config["seed"], config["reproducibility"])
    trainer = get_trainer(config["MODEL_TYPE"], config["model"])(config, model)
    trainer.fit(train_data, None, saved=False, show_progress=False, verbose=False)
    return torch.tensor([trainer.train_loss_dict[epoch] for epoch in range(config["epochs"])])


def scores_of(model, train_data, test_data):
    """Scores of a batch of pairs, and of every item for a batch of users."""
    model.eval()
    with torch.no_grad():
        return model.predict(train_data._dataset[:20]), model.full_sort_predict(next(iter(test_data))[0])


@pytest.mark.parametrize("kind", ["ND", "ED", "RW"])
def test_the_graphs_that_sgl_makes_anew_each_epoch_are_replaced(kind, data_path):
    config, model, train_data, _, _ = prepared("SGL", data_path, {"type": kind})
    compress_graphs(model)
    train_stock(config, model, train_data)
    first = graphs_of(model)
    assert len(first) == (2 * model.n_layers if kind == "RW" else 2)
    train_stock(config, model, train_data)
    for matrix, earlier in zip(graphs_of(model), first):
        assert type(matrix) is PropagationMatrix and matrix is not earlier


def graphs_of(model):
    graphs = model.sub_graph1, model.sub_graph2
    return [matrix for graph in graphs for matrix in (graph if isinstance(graph, list) else [graph])]


@pytest.mark.parametrize("case", ["KGAT"])
def test_the_attention_that_is_renewed_each_epoch_is_replaced(case, data_path):
    config, model, train_data, _, test_data = prepared(case, data_path, {})
    compress_graphs(model)
    first = model.A_in
    train_stock(config, model, train_data)
    scores_of(model, train_data, test_data)
    assert type(model.A_in) is PropagationMatrix and model.A_in is not first


def test_constant_sparse_matrices_are_seen_wherever_a_module_keeps_them():
    matrix = torch.eye(3).to_sparse()

    def module(value):
        made = nn.Linear(2, 2)
        made.kept = value
        return nn.Sequential(made)

    for value in (matrix, matrix.to_sparse_csr(), [matrix], {"a": matrix}, matrix.double()):
        assert has_graphs(module(value))
    for value in (torch.eye(3), [torch.eye(3)], "graph", nn.Parameter(torch.eye(3).to_sparse())):
        assert not has_graphs(module(value))
    compressed = module(matrix)
    compress_graphs(compressed)
    assert has_graphs(compressed)
