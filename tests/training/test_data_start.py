"""Which weights start from the training data, and that only new ones do."""

import re

import pytest
import torch
from scipy.sparse import csr_matrix

from recbole_dsl import DSLTrainer, sparse_weights
from recbole_dsl.data import kept_start
from recbole_dsl.initialisation.factors import Factors
from recbole_dsl.training import data_start
from recbole_dsl.training.data_start import start_weights
from tests.running import prepare

STARTED = "start from a factorisation of the training data: "


@pytest.mark.parametrize(
    "model, tables",
    [
        ("BPR", "user_embedding.weight, item_embedding.weight"),
        (
            "NeuMF",
            "user_mf_embedding.weight, item_mf_embedding.weight, "
            "user_mlp_embedding.weight, item_mlp_embedding.weight",
        ),
        ("SASRec", "item_embedding.weight"),
        # with a row for the masked item
        ("BERT4Rec", "item_embedding.weight"),
        ("MultiVAE", "encoder.0.weight, decoder.2.weight"),
        ("DMF", "user_linear.weight, item_linear.weight"),
    ],
)
def test_the_log_names_the_tables_of_users_and_items(options, caplog, model, tables):
    caplog.set_level("INFO")
    options = {**options, "epochs": 1, "n_layers": 1, "n_heads": 1}
    is_sequential = model in ("SASRec", "BERT4Rec")
    options.update({"load_col": None, "train_neg_sample_args": None} if is_sequential else {})
    config, network, train_data, _, _ = prepare(model, options)
    trainer = DSLTrainer(config, network)
    trainer.fit(train_data, show_progress=False)
    found = [r.getMessage() for r in caplog.records if STARTED in r.getMessage()]
    assert found == [STARTED + tables]
    table = sparse_weights(network).get("item_embedding.weight")
    if is_sequential:
        assert table.row_offsets[1] == 0, "the padding row stays empty"


def test_the_log_is_silent_where_nothing_starts_from_the_training_data(options, caplog):
    caplog.set_level("INFO")
    config, network, train_data, _, _ = prepare(
        "MultiVAE", {**options, "epochs": 1, "train_neg_sample_args": None, "exclude": ["encoder.0", "decoder.2"]}
    )
    DSLTrainer(config, network).fit(train_data, show_progress=False)
    assert sparse_weights(network)
    assert not [r for r in caplog.records if STARTED in r.getMessage()]


def test_the_log_says_how_the_factors_were_chosen(options, caplog):
    caplog.set_level("INFO")
    config, model, train_data, _, _ = prepare("BPR", options)
    DSLTrainer(config, model)
    start_weights(model, train_data._dataset, config["seed"])
    said = " ".join(r.getMessage() for r in caplog.records)
    assert re.search(
        r": \d+ of 8 factors are stronger than in shuffled data; interactions damped to the power 0\.\d+, codes",
        said,
    )


def test_the_values_are_factors_of_the_training_data(options):
    config, model, train_data, _, _ = prepare("BPR", options)
    trainer = DSLTrainer(config, model)
    nnz = trainer.sparsity.nnz
    start_weights(model, train_data._dataset, config["seed"])
    matrix: csr_matrix = train_data._dataset.inter_matrix("csr")
    factors = Factors(matrix, model.embedding_size, 2020)
    items = sparse_weights(model)["item_embedding.weight"]
    ratio = (items.dense() / factors.items(0, items.n_rows)).detach()
    alive = items.dense().detach() != 0
    assert torch.allclose(ratio[alive], ratio[alive].median().expand(int(alive.sum())), rtol=1e-3)
    assert trainer.sparsity.nnz == nnz


@pytest.mark.parametrize("model_name, density", [("BPR", 0.05), ("BPR", 0.3), ("MultiVAE", 0.25)])
def test_a_start_from_the_cache_is_the_one_that_was_made(options, tmp_path, monkeypatch, model_name, density):
    monkeypatch.setattr(kept_start, "_WORTH", 0)

    def started(cache, seed=7, density=density):
        config, model, train_data, _, _ = prepare(
            model_name, {**options, "density": density, "data_cache": cache, "train_neg_sample_args": None}
        )
        DSLTrainer(config, model)
        start_weights(model, train_data._dataset, seed)
        return dict(model.state_dict())

    def require_same(state, wanted):
        assert state.keys() == wanted.keys()
        assert all(torch.equal(state[name], wanted[name]) for name in wanted)

    folder = str(tmp_path / "cache")
    made, other = started(False), started(False, seed=8)
    require_same(started(folder), made)
    usual = data_start.initialise_from

    def refuse(*_):
        raise ZeroDivisionError

    monkeypatch.setattr(data_start, "initialise_from", refuse)
    require_same(started(folder), made)
    with pytest.raises(ZeroDivisionError):
        started(folder, density=density + 0.05)
    monkeypatch.setattr(data_start, "initialise_from", usual)
    # ties may fall otherwise
    require_same(started(folder, seed=8), other)
    for file in (tmp_path / "cache").iterdir():
        content = bytearray(file.read_bytes())
        content[-70] ^= 1
        file.write_bytes(content)
    require_same(started(folder), made)


def test_layers_from_and_to_items_start_from_factors_of_them_and_keep_their_scale(options):
    config, model, train_data, _, _ = prepare("MultiVAE", {**options, "density": 0.25})
    layers = model.encoder[0], model.decoder[2]
    scales = [layer.weight.detach().square().mean().sqrt().item() for layer in layers]
    DSLTrainer(config, model)
    start_weights(model, train_data._dataset, config["seed"])
    matrix = train_data._dataset.inter_matrix("csr")
    factors = Factors(matrix, 600, 2020).repeated.items(0, model.n_items)
    for layer, rows, scale in zip(layers, (factors.T, factors), scales):
        weight = layer.weight.detach()
        alive = weight != 0
        ratio = weight[alive] / rows[alive]
        assert torch.allclose(ratio, ratio.median().expand_as(ratio), rtol=1e-3)
        # every unit keeps one weight, whatever its size
        assert rows.abs()[alive].quantile(0.05) > rows.abs()[~alive].quantile(0.95)
        # as many times larger as there are fewer: the outputs keep their variance
        assert weight.square().mean().sqrt().item() == pytest.approx(scale, rel=0.05)


@pytest.mark.parametrize("model_name", ["SASRec", "BPR"])
def test_items_of_sequential_models_start_as_large_as_those_whose_products_are_scores(options, model_name):
    sequential = {"n_layers": 1, "n_heads": 1, "load_col": None, "train_neg_sample_args": None}
    changes = sequential if model_name == "SASRec" else {}
    config, model, train_data, _, _ = prepare(model_name, {**options, **changes})
    DSLTrainer(config, model)
    assert "item_embedding.weight" in start_weights(model, train_data._dataset, config["seed"])
    started = model.item_embedding.weight.detach()
    # products of independent rows have a standard deviation of a sixteenth
    assert started.square().sum(1).mean().item() == pytest.approx(started.shape[1] ** 0.5 / 16)


def test_a_masked_item_starts_from_the_mean_of_the_items_and_they_from_factors(options):
    sequential = {"n_layers": 1, "n_heads": 1, "load_col": None, "train_neg_sample_args": None, "density": 0.5}
    started = {}
    for name in ("SASRec", "BERT4Rec"):
        config, model, train_data, _, _ = prepare(name, {**options, **sequential})
        DSLTrainer(config, model)
        start_weights(model, train_data._dataset, config["seed"])
        started[name] = sparse_weights(model)["item_embedding.weight"].dense().detach()
    items, masked = started["BERT4Rec"][:-1], started["BERT4Rec"][-1]
    scale = items.norm() / started["SASRec"].norm()
    is_in_both = (items != 0) & (started["SASRec"] != 0)
    # the one row more takes a weight or two
    assert is_in_both.sum() > 0.95 * (items != 0).sum()
    ratios = items[is_in_both] / started["SASRec"][is_in_both]
    assert ratios.std() < 1e-4 and ratios.mean().item() == pytest.approx(scale.item(), rel=0.05)
    assert 0 < masked.norm() < items.norm(dim=1).max()


def test_only_sequential_models_give_rare_items_as_many_weights_as_popular_ones(options):
    sequential = {"n_layers": 1, "n_heads": 1, "load_col": None, "train_neg_sample_args": None}
    shares = {}
    for name, changes in (("SASRec", sequential), ("BPR", {})):
        config, model, train_data, _, _ = prepare(name, {**options, **changes, "density": 0.5})
        DSLTrainer(config, model)
        dataset = train_data._dataset
        start_weights(model, dataset, config["seed"])
        popular = torch.from_numpy(dataset.inter_matrix("csr").getnnz(0)[1:]).argsort()
        counts = sparse_weights(model)["item_embedding.weight"].row_offsets.diff()[1:].float()
        half = len(popular) // 2
        shares[name] = counts[popular[half:]].mean() / counts[popular[:half]].mean()
    assert shares["SASRec"] < 1 < shares["BPR"]


def test_the_first_topology_is_the_one_from_the_data(options):
    config, model, train_data, _, _ = prepare("BPR", {**options, "topology": "fixed"})
    trainer = DSLTrainer(config, model)
    drawn = [weight.alive_in(0, weight.n_rows) for weight in sparse_weights(model).values()]
    trainer.fit(train_data, show_progress=False)
    started = [weight.alive_in(0, weight.n_rows) for weight in sparse_weights(model).values()]
    assert not any(torch.equal(a, b) for a, b in zip(drawn, started))
    assert trainer.exploration_rate == trainer.sparsity.density


def test_a_trained_model_does_not_start_again(options):
    config, model, train_data, _, _ = prepare("BPR", {**options, "topology": "fixed"})
    trainer = DSLTrainer(config, model)
    trainer.fit(train_data, show_progress=False)
    before = [weight.alive_in(0, weight.n_rows) for weight in sparse_weights(model).values()]
    assert start_weights(model, train_data._dataset, config["seed"]) == []
    # nor one that a state was loaded into
    other = prepare("BPR", {**options, "topology": "fixed"})[1]
    DSLTrainer(config, other)
    other.load_state_dict(model.state_dict())
    assert start_weights(other, train_data._dataset, config["seed"]) == []
    after = [weight.alive_in(0, weight.n_rows) for weight in sparse_weights(other).values()]
    assert all(torch.equal(a, b) for a, b in zip(before, after))


@pytest.mark.parametrize("change", [{"sparse_init": "uniform"}, {"density": 1}, {"sparse_init": "magnitude"}])
def test_other_initialisations_keep_the_models_values(options, change):
    config, model, train_data, _, _ = prepare("BPR", {**options, **change})
    dense = model.item_embedding.weight.detach().clone()
    DSLTrainer(config, model)
    assert start_weights(model, train_data._dataset, config["seed"]) == []
    weight = model.item_embedding.weight.detach()
    assert torch.equal(weight[weight != 0], dense[weight != 0])


def test_weights_outside_of_tables_keep_the_variance_of_their_outputs(options):
    config, model, train_data, _, _ = prepare("MultiVAE", {**options, "mlp_hidden_size": [64], "density": 0.25})
    dense = model.encoder[2].weight.detach().clone()
    DSLTrainer(config, model)
    start_weights(model, train_data._dataset, config["seed"])
    sparse = model.encoder[2].weight.detach()
    alive = sparse != 0
    assert torch.allclose(sparse[alive], 2 * dense[alive], rtol=1e-2)


@pytest.mark.parametrize("model, mean_square", [("BPR", 0.5), ("LightGCN", 8), ("NeuMF", 8)])
def test_tables_start_with_larger_values_where_layers_or_propagation_follow(options, model, mean_square):
    sizes = {"embedding_size": 64, "mf_embedding_size": 64, "mlp_embedding_size": 64}
    config, network, train_data, _, _ = prepare(model, {**options, **sizes})
    DSLTrainer(config, network)
    start_weights(network, train_data._dataset, config["seed"])
    tables = {name: weight for name, weight in sparse_weights(network).items() if "embedding" in name}
    assert tables
    for weight in tables.values():
        assert float(weight.values.detach().square().sum()) / weight.n_rows == pytest.approx(mean_square, rel=0.01)


def test_svd_that_finds_no_table_says_so(options, caplog):
    changes = {"sparse_init": "svd", "epochs": 1, "targets": "mlp_layers"}
    config, model, train_data, _, _ = prepare("NeuMF", {**options, **changes})
    DSLTrainer(config, model).fit(train_data, show_progress=False)
    assert "sparse_init=svd: no sparse tensor has a row for each user or each item" in caplog.text


@pytest.mark.parametrize(
    ("model", "changes", "ratio"),
    [
        ("BPR", {}, 0.1**0.3),
        ("BPR", {"item_density_ratio": 0.25}, 0.25),
        ("BPR", {"item_density_ratio": 1}, 1),
        ("BPR", {"budget": "global", "topology": "fixed"}, 0.1**0.3),
        ("BPR", {"sparse_init": "uniform"}, 1),
        # in proportion to rows and columns
        ("BPR", {"budget": "erk"}, ((1682 + 64) / 1682) / ((943 + 64) / 943)),
        ("NeuMF", {}, 1),
        ("LightGCN", {}, 1),
    ],
)
def test_items_have_a_lower_density_than_users_where_a_model_is_two_tables(model, changes, ratio, clean_run):
    config, network, train_data, _, _ = prepare(model, {"epochs": 1, "density": 0.1, **changes}, "ml-100k")
    trainer = DSLTrainer(config, network)
    before = trainer.sparsity.nnz
    trainer.fit(train_data, show_progress=False, saved=False)
    assert trainer.sparsity.nnz == before
    densities = {"user": [], "item": []}
    for name, weight in trainer.sparsity.weights.items():
        if "embedding" in name:
            densities["user" if "user" in name else "item"].append(weight.density)
    assert densities["item"][0] / densities["user"][0] == pytest.approx(ratio, rel=0.01)


def test_short_histories_leave_the_densities_as_they_are(options):
    config, network, train_data, _, _ = prepare("BPR", {**options, "density": 0.3})
    trainer = DSLTrainer(config, network)
    counts = [weight.nnz for weight in trainer.sparsity.weights.values()]
    trainer.fit(train_data, show_progress=False, saved=False)
    assert [weight.nnz for weight in trainer.sparsity.weights.values()] == counts
