"""How the fields of context-aware models, and the layers that cross their rows, start."""

import pytest
import torch
from recbole.model.context_aware_recommender import DCNV2

from recbole_dsl import DSLTrainer, sparse_weights
from recbole_dsl.training import field_start
from recbole_dsl.training.data_start import start_weights
from tests.running import prepare

NEGATIVES = {"train_neg_sample_args": {"distribution": "uniform", "sample_num": 1}}


@pytest.fixture
def common_tokens(monkeypatch):
    # the tokens of the tests' data are rare: rows have as many weights where they are not
    monkeypatch.setattr(field_start, "_OFTEN", 1)


@pytest.mark.parametrize("name", ["DeepFM", "DCNV2", "WideDeep"])
def test_fields_keep_their_scale_and_share_columns_where_they_are_multiplied(options, name, common_tokens):
    config, model, train_data, _, _ = prepare(name, {**options, **NEGATIVES})
    dense = model.token_embedding_table.embedding.weight.detach().clone()
    dense_layer = model.mlp_layers.mlp_layers[1].weight.detach().clone()
    DSLTrainer(config, model)
    assert start_weights(model, train_data._dataset, config["seed"]) == []
    table = model.token_embedding_table.embedding.weight.detach()
    n_shared = int(sparse_weights(model)["token_embedding_table.embedding.weight"].density * table.shape[1])
    shares = (table[:, :n_shared] != 0).all() and not (table[:, n_shared + 1 :] != 0).any()
    assert shares == (name != "WideDeep"), "its layers read the rows one by one"
    # a row starts from as small values as the dense model's, though it has fewer of them
    kept = dense[dense != 0].sort().values
    assert torch.isin(table[table != 0], kept).all()
    layer = model.mlp_layers.mlp_layers[1].weight.detach()
    alive = layer != 0
    assert torch.allclose(layer[alive], dense_layer[alive] * config["density"] ** -0.5, rtol=1e-2)
    assert alive.any(0).float().mean() > n_shared / table.shape[1], "layers stay at random"


@pytest.mark.parametrize("name", ["AFM", "FFM", "FM", "FwFM", "NFM", "xDeepFM"])
def test_all_tables_of_models_that_multiply_rows_share_columns(options, name, common_tokens):
    changes = {"mlp_hidden_size": [8], "cin_layer_size": [4]}
    config, model, train_data, _, _ = prepare(name, {**options, **NEGATIVES, **changes})
    DSLTrainer(config, model)
    start_weights(model, train_data._dataset, config["seed"])
    tables = [weight for name, weight in sparse_weights(model).items() if "embedding" in name]
    tables = [weight for weight in tables if weight.n_columns == config["embedding_size"]]
    assert tables
    for weight in tables:
        table, n_shared = weight.dense() != 0, int(weight.density * weight.n_columns)
        assert table[:, :n_shared].all() and not table[:, n_shared + 1 :].any()


class OwnLayers(DCNV2):
    """Cross layers of a user's own, whose hidden layers are as wide as all fields by chance."""

    def __init__(self, config, dataset):
        width = config["embedding_size"] * 2
        config["mlp_hidden_size"] = [width, width]
        super().__init__(config, dataset)
        assert width == self.in_feature_num
        self.cross_layer_w = None
        self.crossing = torch.nn.Parameter(torch.rand(width, width))

    def cross_network(self, x_0):
        return x_0 * (x_0 @ self.crossing.T) + x_0


@pytest.mark.parametrize("density", [0.05, 0.1, 0.3, 0.9])
@pytest.mark.parametrize("kind", [DCNV2, OwnLayers])
def test_cross_layers_start_where_the_fields_have_entries(options, kind, density, common_tokens, caplog):
    changes = {"embedding_size": 16, "density": density, "mlp_hidden_size": [8]}
    caplog.set_level("INFO")
    config, _, train_data, _, _ = prepare("DCNV2", {**options, **NEGATIVES, **changes})
    model = kind(config, train_data._dataset)
    drawn = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    trainer = DSLTrainer(config, model)
    n_weights = trainer.sparsity.nnz
    start_weights(model, train_data._dataset, config["seed"])
    assert trainer.sparsity.nnz == n_weights, "the budget stays"
    weights = sparse_weights(model)
    table = weights["token_embedding_table.embedding.weight"]
    filled = (table.dense() != 0).any(0).repeat(model.num_feature_field)
    crossing = {name: weight for name, weight in weights.items() if "cross" in name}
    assert crossing and all(name in caplog.text for name in crossing)
    for name, weight in crossing.items():
        assert weight.density == pytest.approx(table.density**2, rel=0.1, abs=2 / weight.numel)
        alive = weight.dense() != 0
        assert not alive[~filled].any() and not alive[:, ~filled].any()
        assert torch.isin(weight.values, drawn[name]).all(), "as drawn"
    hidden = weights["mlp_layers.mlp_layers.1.weight"].dense() != 0
    assert hidden.float().mean() == pytest.approx(density, rel=0.1), "hidden layers stay as they are"
    assert density == 0.9 or hidden[:, ~filled].any()


def test_a_gradient_reaches_all_of_a_cross_layer(options, common_tokens):
    config, model, train_data, _, _ = prepare("DCNV2", {**options, **NEGATIVES, "density": 0.25})
    DSLTrainer(config, model)
    start_weights(model, train_data._dataset, config["seed"])
    model.reg_weight = 0
    for batch in train_data:
        model.calculate_loss(batch).backward()
    assert (sparse_weights(model)["cross_layer_w.0"].values.grad != 0).float().mean() > 0.95


def test_columns_of_frequent_tokens_are_crossed_first(options):
    config, model, train_data, _, _ = prepare("DCNV2", {**options, **NEGATIVES, "density": 0.2})
    DSLTrainer(config, model)
    start_weights(model, train_data._dataset, config["seed"])
    weights = sparse_weights(model)
    lengths = weights["token_embedding_table.embedding.weight"].row_offsets.diff()
    assert lengths.max() > lengths[lengths > 0].min(), "rows differ"
    per_column = (weights["cross_layer_w.0"].dense() != 0).sum(0).view(model.num_feature_field, -1).sum(0)
    assert (per_column.diff() <= 0).all() and per_column[0] > per_column[-1]


@pytest.mark.parametrize(
    "changes", [{"budget": "erk"}, {"sparse_init": "uniform"}, {"mixed": True, "low_rank": 2}]
)
def test_other_budgets_starts_and_layers_keep_what_each_weight_has(options, changes):
    config, model, train_data, _, _ = prepare("DCNV2", {**options, **NEGATIVES, **changes})
    trainer = DSLTrainer(config, model)
    before = {name: weight.nnz for name, weight in sparse_weights(model).items()}
    trainer._start_weights(train_data)
    assert {name: weight.nnz for name, weight in sparse_weights(model).items()} == before
