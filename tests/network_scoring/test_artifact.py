"""Artifacts of models that are no product: small, served anywhere, and nothing in them is believed."""

import json
import os
import random

import numpy as np
import pytest
import torch
from recbole.data.interaction import Interaction
from recbole.model.abstract_recommender import GeneralRecommender, SequentialRecommender
from recbole.utils import InputType
from torch import nn

from recbole_dsl import DSLError, densify
from recbole_dsl.network_scoring.artifact import load
from recbole_dsl.serving.artifact import Artifact, read_artifact
from recbole_dsl.serving.csr import CSR
from tests.network_scoring.exported import DENSITY, made
from tests.training.test_models import options_of

KINDS = {
    "NeuMF": "general",
    "MultiVAE": "general",
    "SASRecF": "sequential",
    "DeepFM": "context-aware",
    "KGCN": "knowledge-aware",
}


# so that its recurrent layer, which stays dense, is packed
SIZES = {"GRU4Rec": {"embedding_size": 16, "hidden_size": 32}}


def exported(case, data_path, **changes):
    family = KINDS.get(case, "sequential")
    return made({**options_of(family, case, data_path), **DENSITY, **SIZES.get(case, {}), **changes})


def opened(made_model, **options):
    """What is read of the file that ``made_model`` is written to."""
    return load(read_artifact(made_model.write("model.rdsl", **options)))


def users_of(one, n=5):
    return one.dataset.join(Interaction({"user_id": torch.arange(1, n + 1)}))


def test_it_holds_what_the_model_reads_of_the_data_and_no_more(data_path):
    def tables(case):
        header, arrays = exported(case, data_path).parts()
        assert data_path not in json.dumps(header)
        return {
            n: [c for c, _ in t["columns"]] for n, t in header["data"]["tables"].items() if t["columns"]
        }, arrays

    assert tables("NeuMF")[0] == {}
    found, arrays = tables("MultiVAE")
    assert found == {"inter_feat": ["user_id", "item_id"]}
    assert arrays["network.inter_feat/item_id"].nbytes == 520 * 6 // 8, "50 items are six bits each"
    assert tables("SASRecF")[0] == {"item_feat": ["class"]}
    assert tables("DeepFM")[0] == {"user_feat": ["age", "gender"], "item_feat": ["release_year", "class"]}
    assert tables("KGCN")[0] == {"kg_feat": ["head_id", "relation_id", "tail_id"]}


@pytest.mark.parametrize("values, error", [("fp16", 2e-3), ("int8", 0.05), ("int4", 0.5)])
def test_sparse_weights_take_fewer_bits(data_path, values, error):
    one = exported("MultiVAE", data_path)
    expected = one.expected(users_of(one))
    scores = opened(one, values=values).scores(np.arange(5))
    assert 0 < np.abs(scores - expected).mean() < error * expected.std()
    full, small = (sum(array.nbytes for array in one.parts(values=name)[1].values()) for name in ("fp32", values))
    assert small < full


@pytest.mark.parametrize(
    "values, share, error", [("fp32", 1, 1e-5), ("fp16", 1 / 2, 2e-3), ("int8", 1 / 4, 0.05), ("int4", 1 / 8, 0.5)]
)
def test_dense_matrices_take_fewer_bits_too(data_path, values, share, error):
    one = exported("GRU4Rec", data_path)
    expected = one.expected(one.train_dataset[:5])
    header, arrays = one.parts(values=values)
    packed = header["weights"]["packed"]
    assert set(packed) == {"gru_layers.weight_ih_l0", "gru_layers.weight_hh_l0"}
    names = [name for name in arrays if any(name.startswith(f"{form['of']}.") for form in packed.values())]
    n_bytes = sum(arrays[name].nbytes for name in names)
    assert share <= n_bytes / (4 * 96 * (16 + 32)) < share + 0.1
    scorer = opened(one, values=values)
    with torch.no_grad():
        scores = scorer.model.full_sort_predict(one.train_dataset[:5]).view(5, -1)[:, 1:].numpy()
    assert np.abs(scores - expected).mean() < error * expected.std()


def test_a_matrix_with_an_entry_too_large_for_few_bits_is_stored_as_it_is(data_path):
    one = exported("GRU4Rec", data_path)
    one.model.gru_layers.weight_hh_l0.data[0, 0] = 1e9
    header, _ = one.parts(values="int4")
    assert set(header["weights"]["packed"]) == {"gru_layers.weight_ih_l0"}
    scorer = opened(one, values="int4")
    assert torch.equal(scorer.model.gru_layers.weight_hh_l0, one.model.gru_layers.weight_hh_l0)


def test_who_is_known_is_scored_by_all_or_by_what_was_trained_on(data_path):
    options = {"eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "full"}}
    one = exported("SASRec", data_path, **options)
    rows = one.dataset.inter_feat
    whole = {
        user: [*rows["item_id_list"][row][: rows["item_length"][row]].tolist(), int(rows["item_id"][row])]
        for row, user in enumerate(rows["user_id"].tolist())
    }
    assert all(len(items) == 15 for items in whole.values())
    users = np.arange(8)
    for seen, left_out in (("all", 0), ("none", 0), ("trained", 2)):
        scorer = opened(one, seen=seen)
        histories = [np.array(whole[user + 1][: 15 - left_out]) - 1 for user in users]
        given = scorer.scores_for(CSR.of_lists(histories))
        np.testing.assert_allclose(scorer.scores(users), given, rtol=1e-5, atol=1e-6)


def test_only_the_last_items_of_a_long_history_count(data_path):
    scorer = opened(exported("SASRec", data_path, MAX_ITEM_LIST_LENGTH=4))
    long, short = scorer.scores_for(CSR.of_lists([[9, 8, 7, 6, 5, 4, 3], [6, 5, 4, 3]]))
    np.testing.assert_array_equal(long, short)


def test_an_autoencoder_takes_the_history_of_a_user_for_the_user(data_path):
    one = exported("MultiVAE", data_path)
    scorer, rows = opened(one), one.train_dataset.inter_feat
    histories = [(rows["item_id"][rows["user_id"] == user + 1] - 1).numpy() for user in range(6)]
    np.testing.assert_allclose(
        scorer.scores_for(CSR.of_lists(histories)), scorer.scores(np.arange(6)), rtol=1e-5, atol=1e-6
    )


def test_a_model_that_reads_the_user_too_gets_the_average_user(data_path):
    one = exported("FPMC", data_path)
    scores = opened(one).scores_for(CSR.of_lists([[3, 4, 5]]))
    densify(one.model)
    with torch.no_grad():
        one.model.UI_emb.weight[0] = one.model.UI_emb.weight[1:].mean(0)
    table = Interaction(
        {
            "user_id": torch.tensor([0]),
            "item_id_list": torch.tensor([[4, 5, 6] + [0] * 47]),
            "item_length": torch.tensor([3]),
        }
    )
    np.testing.assert_allclose(scores, one.expected(table), rtol=1e-4, atol=1e-6)


def test_what_scores_users_only_takes_no_histories(data_path):
    scorer = opened(exported("NeuMF", data_path))
    assert not scorer.takes_histories
    with pytest.raises(DSLError, match=r"^model=NeuMF: must be a sequential model or an autoencoder to recommend"):
        scorer.top_for(CSR.of_lists([[1]]), 3, None, None)


def test_similar_items_are_those_of_the_nearest_vectors(data_path):
    one = exported("SASRec", data_path)
    ids, scores = opened(one).similar(np.array([4, 7]), 3, None)
    vectors = one.model.item_embedding.weight.detach().numpy()[1:].copy()
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-12)
    cosines = vectors[[4, 7]] @ vectors.T
    cosines[[0, 1], [4, 7]] = -np.inf
    np.testing.assert_allclose(scores, -np.sort(-cosines, 1)[:, :3], rtol=1e-5)
    assert 4 not in ids[0] and 7 not in ids[1]
    with pytest.raises(DSLError, match=r"^model=NeuMF: must have vectors of items"):
        opened(exported("NeuMF", data_path)).similar(np.array([1]), 3, None)


def test_serving_leaves_the_process_as_it_was(data_path, monkeypatch, capsys):
    path = exported("FEARec", data_path).write("model.rdsl")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5")
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    capsys.readouterr()
    load(read_artifact(path)).scores(np.arange(3))
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == states
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "5"
    assert capsys.readouterr().out == ""


class Mine(GeneralRecommender):
    """Reads of its data what few models of RecBole do."""

    input_type = InputType.PAIRWISE

    def __init__(self, config, dataset):
        super().__init__(config, dataset)
        self.users = nn.Embedding(self.n_users, config["embedding_size"])
        self.items = nn.Embedding(self.n_items, config["embedding_size"])
        popularity = [dataset.item_counter[item] for item in range(self.n_items)]
        ratings = dataset.inter_matrix("csr", value_field="rating").sum(0)
        self.prior = torch.tensor(popularity).float() + torch.from_numpy(np.asarray(ratings)).view(-1)
        names = dataset.id2token(dataset.iid_field, np.arange(self.n_items))
        self.prior += torch.tensor([len(name) for name in names])

    def calculate_loss(self, interaction):
        return self.users.weight.sum() + self.items.weight.sum()

    def predict(self, interaction):
        users, items = interaction[self.USER_ID], interaction[self.ITEM_ID]
        return (self.users(users) * self.items(items)).sum(-1) + self.prior[items]


class Timed(SequentialRecommender):
    """Reads when things were done, which nobody says of a history."""

    input_type = InputType.POINTWISE

    def __init__(self, config, dataset):
        super().__init__(config, dataset)
        self.items = nn.Embedding(self.n_items, config["embedding_size"])

    def calculate_loss(self, interaction):
        return self.items.weight.sum()

    def full_sort_predict(self, interaction):
        times = interaction["timestamp_list"].float().mean(1, keepdim=True)
        return times * self.items.weight.sum(1)


def own_options(data_path):
    columns = {"inter": ["user_id", "item_id", "rating", "timestamp"]}
    return {"dataset": "tiny", "data_path": data_path, "load_col": columns, "embedding_size": 8, **DENSITY}


def test_a_model_of_ones_own_is_served_by_its_class(data_path):
    one = made(own_options(data_path), Mine)
    artifact = read_artifact(one.write("mine.rdsl"))
    np.testing.assert_allclose(
        load(artifact, Mine).scores(np.arange(5)), one.expected(users_of(one)), rtol=1e-5, atol=1e-5
    )
    with pytest.raises(DSLError, match=r"holds Mine, .*; give its class as model_class$"):
        load(artifact)


def test_a_model_that_needs_more_than_items_of_a_history_is_refused_when_it_is_exported(data_path):
    options = {**own_options(data_path), "train_neg_sample_args": None}
    with pytest.raises(DSLError, match=r"^model=Timed: reads timestamp_list of an interaction"):
        made(options, Timed).parts()


HOSTILE = [None, "zzz", "../../etc/passwd", "__import__('os').mkdir('pwned')", -1, 10**12, 1.5, [], {}, [[]], True]


@pytest.mark.parametrize("case", ["SASRecF", "DeepFM", "MultiVAE", "KGCN", "GRU4Rec"])
def test_whatever_it_says_is_served_or_refused_in_one_line(case, data_path):
    one = exported(case, data_path)
    header, arrays = one.parts()
    places = list(_places(header))
    choice = random.Random(0)
    served = 0
    for place in choice.sample(places, min(25, len(places))):
        served += _holds(one, _with(header, place, choice.choice(HOSTILE)), arrays)
    for name in choice.sample(sorted(arrays), min(8, len(arrays))):
        served += _holds(one, header, {key: array for key, array in arrays.items() if key != name})
        damaged = choice.choice([arrays[name][:-1], np.zeros(3, np.float32), arrays[name].reshape(-1, 1)])
        served += _holds(one, header, {**arrays, name: damaged})
        if arrays[name].dtype.kind == "u":
            served += _holds(one, header, {**arrays, name: np.full_like(arrays[name], 250)})
    assert served > 0, "most of what is said here does not matter to the scores"
    assert not os.path.exists("pwned")


@pytest.mark.parametrize(
    "name, value", [("dataset", "../x"), ("dataset", "/etc/x"), ("model", "..x"), ("model", "NoMF")]
)
def test_it_is_of_no_model_or_dataset_that_is_a_path_or_none(name, value, data_path):
    one = exported("NeuMF", data_path)
    header, arrays = one.parts()
    with pytest.raises(DSLError, match=r"x.rdsl: (must name a model and a dataset|holds NoMF)") as error:
        load(Artifact("x.rdsl", {**one.header(header), name: value}, arrays))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("part", ["options", "other_parameter", "data", "weights", "as_bytes", "draws"])
def test_each_part_of_it_has_its_form_or_is_refused_in_one_line(part, data_path):
    one = exported("MultiVAE", data_path)
    header, arrays = one.parts()
    for value in HOSTILE:
        _holds(one, {**header, part: value}, arrays)


def _holds(one, header, arrays):
    try:
        scorer = load(Artifact("x.rdsl", one.header(header), arrays))
        assert scorer.scores(np.arange(3)).shape == (3, one.dataset.item_num - 1)
    except DSLError as error:
        assert "\n" not in str(error) and len(str(error)) < 500
        return False
    return True


def _places(value, place=()):
    if isinstance(value, dict):
        for key, entry in value.items():
            yield from _places(entry, (*place, key))
    elif isinstance(value, list) and value:
        for number, entry in enumerate(value):
            yield from _places(entry, (*place, number))
    if place:
        yield place


def _with(header, place, value):
    changed = json.loads(json.dumps(header))
    inner = changed
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return changed
