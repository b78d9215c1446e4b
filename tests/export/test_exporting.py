"""From a checkpoint to an artifact: what is a product is found by computing, and gives what the model gives."""

import json
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from recbole.data.interaction import Interaction
from recbole.model.abstract_recommender import GeneralRecommender
from recbole.model.general_recommender import BPR
from torch import nn

from recbole_dsl import load_data_and_model, run_recbole_dsl, sparse_weights
from recbole_dsl.cli import main
from recbole_dsl.errors import DSLError
from recbole_dsl.export.exporting import ndcg_at_10
from recbole_dsl.export.product_form import product_form
from recbole_dsl.serving import Recommender, export
from recbole_dsl.serving.csr import CSR
from tests.running import prepare, train

OF_RECBOLE = ["BPR", "LightGCN", "NGCF", "SGL", "DGCF", "SpectralCF", "SimpleX", "LINE", "ENMF", "CKE"]


class Biased(BPR):
    """With a bias for each item, and one for all."""

    def __init__(self, config, dataset):
        super().__init__(config, dataset)
        self.bias = nn.Parameter(torch.randn(self.n_items))

    def full_sort_predict(self, interaction):
        users = self.user_embedding(interaction[self.USER_ID])
        return (users @ self.item_embedding.weight.T + self.bias).view(-1)


class Shared(BPR):
    """Through a sigmoid, with a weight for each column."""

    def __init__(self, config, dataset):
        super().__init__(config, dataset)
        self.column = nn.Parameter(torch.rand(self.embedding_size) + 0.5)

    def full_sort_predict(self, interaction):
        users = self.user_embedding(interaction[self.USER_ID]) * self.column
        return torch.sigmoid(users @ self.item_embedding.weight.T).view(-1)


class Deep(BPR):
    """No product: a layer that is not linear lies between."""

    def full_sort_predict(self, interaction):
        users = self.user_embedding(interaction[self.USER_ID])
        return torch.tanh(users[:, None] * self.item_embedding.weight).sum(-1).view(-1)


class Noisy(BPR):
    """Another score each time."""

    def full_sort_predict(self, interaction):
        return super().full_sort_predict(interaction) + torch.rand(1)


def scores_of(model, users):
    with torch.no_grad():
        model.eval()
        interaction = Interaction({model.USER_ID: torch.tensor(users) + 1})
        return model.full_sort_predict(interaction).view(len(users), -1)[:, 1:].numpy()


def found_in(model, dataset):
    return product_form(model, dataset.user_num - 1, dataset.item_num - 1)


@pytest.fixture
def saved(options):
    """A trained BPR's file, what loads of it, and its artifact's path."""
    trainer, _ = train("BPR", options)
    return trainer.saved_model_file


@pytest.mark.parametrize("name", OF_RECBOLE)
def test_products_of_recbole_are_exported_with_their_scores(name, options):
    if name == "CKE":
        options["load_col"] = None
    if name == "DMF":
        # its vectors must be shorter than there are items
        options.update(user_hidden_size_list=[8, 8], item_hidden_size_list=[8, 8], density=1, learning_rate=0.001)
    trainer, _ = train(name, options)
    model_file = trainer.saved_model_file
    made = export(model_file, "model.rdsl")
    assert made.kind == "product" and made.ndcg[0] == pytest.approx(made.ndcg[1], abs=1e-6)
    _, model, dataset, *_ = load_data_and_model(model_file)
    recommender = Recommender.load("model.rdsl")
    users = [0, 7, dataset.user_num - 2]
    wanted = scores_of(model, users)
    tokens = [recommender.users[user] for user in users]
    items, scores = recommender.recommend(tokens, made.n_items, filter_seen="none")
    for row in range(len(users)):
        assert tokens[row] == dataset.field2id_token[dataset.uid_field][users[row] + 1]
        given = dict(zip(items[row], scores[row]))
        ours = [given[token] for token in dataset.field2id_token[dataset.iid_field][1 : made.n_items + 1]]
        assert np.allclose(ours, wanted[row], atol=2e-4 * np.abs(wanted).max())


@pytest.mark.parametrize("model, transform, has_bias", [(Biased, "none", True), (Shared, "sigmoid", False)])
def test_models_of_ones_own_are_products_if_their_scores_are(model, transform, has_bias, options):
    _, _, train_data, *_ = loaded = prepare("BPR", options)
    own = model(loaded[0], train_data.dataset)
    form = found_in(own, train_data.dataset)
    assert (form.transform, form.has_bias) == (transform, has_bias)
    users, items = (side.dense() for side in (form.users, form.items))
    products = users[[1, 5]] @ items.T
    through = 1 / (1 + np.exp(-products)) if transform == "sigmoid" else products
    assert np.allclose(through, scores_of(own, [1, 5]), atol=1e-4)


@pytest.mark.parametrize("model", [Deep, Noisy])
def test_what_is_no_product_is_not_taken_for_one(model, options):
    config, _, train_data, *_ = prepare("BPR", options)
    assert found_in(model(config, train_data.dataset), train_data.dataset) is None


@pytest.mark.parametrize("name", ["NeuMF", "MultiVAE", "NAIS"])
def test_networks_of_recbole_are_no_products(name, options):
    _, model, train_data, *_ = prepare(name, options)
    with torch.no_grad():
        # so small as they begin, every function is a straight line
        for parameter in model.parameters():
            parameter.mul_(10)
    assert found_in(model, train_data.dataset) is None


def test_sparse_vectors_stay_sparse(saved):
    export(saved, "model.rdsl")
    _, model, *_ = load_data_and_model(saved)
    table = Recommender.load("model.rdsl").scorer.items
    assert table.nnz == sparse_weights(model)["item_embedding.weight"].nnz


def test_seen_items_are_those_of_the_data_or_of_the_training(saved):
    export(saved, "model.rdsl")
    *_, train_data, valid_data, test_data = load_data_and_model(saved)
    dataset = train_data._dataset
    recommender = Recommender.load("model.rdsl")
    had = {"trained": [train_data], "all": [train_data, valid_data, test_data]}
    tokens = dataset.field2id_token
    for level, parts in had.items():
        feats = [part._dataset.inter_feat for part in parts]
        for user in (1, 9):
            items = {int(i) for feat in feats for i in feat["item_id"][feat["user_id"] == user]}
            named = {tokens["item_id"][item] for item in items}
            given = recommender.recommend(tokens["user_id"][user], 50, filter_seen=level)[0]
            assert set(given) == set(tokens["item_id"][1:]) - named


@pytest.mark.parametrize("level", ["trained", "none"])
def test_an_artifact_without_them_knows_what_is_popular_all_the_same(level, saved):
    export(saved, "all.rdsl")
    export(saved, "less.rdsl", seen=level)
    assert os.path.getsize("less.rdsl") < os.path.getsize("all.rdsl")
    every, less = (
        Recommender.load(path).recommend("nobody", unknown="popular") for path in ("all.rdsl", "less.rdsl")
    )
    assert every[0].tolist() == less[0].tolist() and every[1].tolist() == less[1].tolist()


def test_fewer_entries_and_bits_are_kept_where_asked_for(options):
    trainer, _ = train("LightGCN", options)
    dense = export(trainer.saved_model_file, "whole.rdsl")
    small = export(trainer.saved_model_file, "small.rdsl", values="int8", density=0.25)
    tables = Recommender.load("small.rdsl").scorer
    assert tables.users.nnz == round(0.25 * tables.users.n_rows * 8) and tables.items.values == "int8"
    assert small.table_bytes < dense.table_bytes / 3 and small.ndcg[1] > 0
    lines = str(small).splitlines()
    assert len(lines) == 3 and re.match(
        r"NDCG@10 on the validation data: 0\.\d+ the checkpoint, 0\.\d+ the", lines[-1]
    )
    whole, *parts = (int(number) for number in re.findall(r"(?<![.\d])(\d+) (?=[a-z])", lines[1].replace(",", "")))
    assert whole == small.n_bytes == os.path.getsize("small.rdsl") == sum(parts) and min(parts) > 0
    assert small.token_bytes in parts and small.history_bytes in parts
    assert export(trainer.saved_model_file, "x.rdsl", compare=False).ndcg is None


@pytest.mark.parametrize("name", ["LightGCN", "SGL"])
def test_vectors_of_graph_models_are_made_of_their_sparse_weights_again(name, options):
    trainer, _ = train(name, options)
    export(trainer.saved_model_file, "whole.rdsl")
    small = export(trainer.saved_model_file, "small.rdsl", propagate=True)
    assert small.ndcg[1] == pytest.approx(small.ndcg[0], abs=1e-6)
    whole, again = (Recommender.load(path).to_numpy() for path in ("whole.rdsl", "small.rdsl"))
    for vectors, made in ((whole.users, again.users), (whole.items, again.items)):
        assert np.allclose(vectors, made, atol=1e-5 * np.abs(vectors).max())
    assert small.table_bytes < 4 * 0.5 * (whole.users.size + whole.items.size)
    with pytest.raises(DSLError, match="propagate=True: must be left out with seen=none"):
        export(trainer.saved_model_file, "none.rdsl", propagate=True, seen="none")


def test_vectors_that_are_weights_are_not_propagated(saved):
    with pytest.raises(DSLError, match="propagate=True: must be left out, as BPR makes its vectors of no sparse"):
        export(saved, "model.rdsl", propagate=True)


def test_ndcg_is_that_of_recbole(options):
    trainer, _ = train(
        "BPR", {**options, "metrics": ["NDCG"], "valid_metric": "NDCG@10", "metric_decimal_place": 6}
    )
    made = export(trainer.saved_model_file, "model.rdsl")
    assert made.ndcg[0] == pytest.approx(trainer.best_valid_result["ndcg@10"], abs=2e-6)


def test_ndcg_of_a_case_that_is_computed_by_hand():
    ids = np.array([[3, 1, -1], [0, 2, 4]])
    found = ndcg_at_10(ids, CSR.of_lists([[1, 5], [0]]))
    assert found == pytest.approx(((1 / np.log2(3)) / (1 + 1 / np.log2(3)) + 1) / 2)


def test_the_last_line_of_a_training_says_how_to_recommend(options, caplog, capfd, monkeypatch):
    with caplog.at_level("INFO"):
        run_recbole_dsl("BPR", "tiny", config_dict=options)
    said = [record.getMessage() for record in caplog.records if "to recommend" in record.getMessage()][-1]
    commands = re.sub(r"\x1b\[[0-9;]*m", "", said).partition(": ")[2].split(" && ")
    assert [command.split()[:2] for command in commands] == [
        ["recbole-dsl", "export"],
        ["recbole-dsl", "recommend"],
    ]
    for command in commands:
        monkeypatch.setattr(sys, "argv", command.split())
        main(command.split()[1:])
    out, err = capfd.readouterr()
    assert "served as a product" in err
    result, _, *rows = out.splitlines()
    assert json.loads(result)["kind"] == "product" and len(rows) == 40 * 10


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"values": "int2"}, "values=int2: must be one of fp32, fp16, int8, int4"),
        ({"seen": "some"}, "seen=some: must be one of all, trained, none"),
        ({"density": 0}, "density=0: must be a number in (0, 1]"),
        ({"density": "x"}, "density=x: must be a number in (0, 1]"),
        ({"density": True}, "density=True: must be a number in (0, 1]"),
        ({"path": "folder"}, "artifact=folder: must be a file, and is a folder"),
        ({"model_file": "nowhere"}, "model_file=nowhere: must be an existing file"),
        ({"model_file": "stock.pth"}, "model_file=stock.pth: must be a checkpoint of recbole_dsl"),
        ({"model_file": "bomb.pth"}, "model_file=bomb.pth: must be a whole checkpoint of recbole_dsl"),
        ({"data_path": "nowhere"}, "dataset=tiny: "),
    ],
)
def test_what_cannot_be_exported_is_one_line_and_writes_nothing(changes, message, saved):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, ("ran",)

    os.mkdir("folder")
    torch.save({"state_dict": {}}, "stock.pth")
    torch.save({"x": Bomb()}, "bomb.pth")
    before = sorted(os.listdir())
    with pytest.raises(DSLError, match=f"^{re.escape(message)}") as error:
        export(**{"model_file": saved, "path": "model.rdsl", **changes})
    assert "\n" not in str(error.value) and sorted(os.listdir()) == before


def test_a_model_of_ones_own_is_exported_by_its_class(options):
    run_recbole_dsl(Biased, "tiny", config_dict=options)
    (model_file,) = map(str, Path("saved").glob("*.pth"))
    with pytest.raises(DSLError, match="holds Biased, which is not a RecBole model"):
        export(model_file, "model.rdsl")
    made = export(model_file, "model.rdsl", values="int8", model_class=Biased)
    assert made.kind == "product" and made.ndcg[1] == pytest.approx(made.ndcg[0], abs=0.02)
    assert Recommender.load("model.rdsl").scorer.has_bias
    assert issubclass(Biased, GeneralRecommender)
