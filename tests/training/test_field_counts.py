"""How often each row of a table of fields is trained, compared with RecBole's join of all features."""

import pytest
import torch

from recbole_dsl import DSLTrainer, sparse_weights
from recbole_dsl.training.data_start import start_weights
from recbole_dsl.training.field_counts import field_counts
from tests.running import prepare

FEATURES = {
    "load_col": {
        "inter": ["user_id", "item_id", "rating"],
        "user": ["user_id", "age", "gender"],
        "item": ["item_id", "release_year", "class"],
    },
    "threshold": {"rating": 4},
    "train_neg_sample_args": None,
    "eval_args": {"split": {"RS": [0.8, 0.1, 0.1]}, "group_by": None, "order": "RO", "mode": "labeled"},
    "metrics": ["AUC", "LogLoss"],
    "valid_metric": "AUC",
}


@pytest.fixture
def with_features(options):
    return {**options, **FEATURES, "embedding_size": 20}


def joined_counts(dataset, fields):
    """Counts of the joined rows, by RecBole's own code."""
    joined = dataset.join(dataset.inter_feat)
    return torch.cat([torch.bincount(joined[field].reshape(-1), minlength=dataset.num(field)) for field in fields])


def started(name, options):
    """A sparse model with its start, and the data that it starts from."""
    config, model, train_data, _, _ = prepare(name, options)
    DSLTrainer(config, model)
    start_weights(model, train_data._dataset, config["seed"])
    return model, train_data._dataset


def lengths_of(model, table):
    return sparse_weights(model)[table].row_offsets.diff()


@pytest.mark.parametrize("name", ["FM", "DeepFM", "WideDeep"])
def test_tokens_of_interactions_users_and_items_are_counted_as_joined(with_features, name):
    config, model, train_data, _, _ = prepare(name, with_features)
    DSLTrainer(config, model)
    dataset = train_data._dataset
    counts = field_counts(model, dataset)
    of_all, of_lists = joined_counts(dataset, model.token_field_names), joined_counts(dataset, ["class"])
    # padding of lists is no token
    of_lists[0] = 0
    names = {weight: name for name, weight in sparse_weights(model).items()}
    found = {names[weight]: rows for weight, rows in counts.items()}
    assert set(found) == {name for name in names.values() if "embedding_table" in name}
    for name, rows in found.items():
        assert torch.equal(rows, of_lists if "seq" in name else of_all)


@pytest.mark.parametrize("name", ["FM", "DeepFM", "NFM"])
def test_where_tokens_are_rare_frequent_ones_start_with_more_weights(with_features, name):
    model, dataset = started(name, with_features)
    lengths = lengths_of(model, "token_embedding_table.embedding.weight")
    counts = joined_counts(dataset, model.token_field_names)
    order = counts.argsort()
    # the two genders, and nothing for tokens that only other parts of the data have
    assert lengths[order[-2:]].min() > 2 * lengths[counts > 0].median()
    assert not lengths[counts == 0].any()
    # rows of equal counts may differ by one weight
    assert (lengths[order].diff() >= -1).all()


@pytest.mark.parametrize("name", ["FM", "WideDeep"])
def test_where_tokens_are_rare_the_most_frequent_ones_have_first_orders(with_features, name):
    model, dataset = started(name, with_features)
    lengths = lengths_of(model, "first_order_linear.token_embedding_table.embedding.weight")
    counts = joined_counts(dataset, model.token_field_names)
    assert counts[lengths == 1].min() >= counts[lengths == 0].max()


def test_where_tokens_are_frequent_all_rows_start_with_as_many_weights(with_features, monkeypatch):
    monkeypatch.setattr("recbole_dsl.training.field_start._OFTEN", 2)
    model, _ = started("FM", with_features)
    lengths = lengths_of(model, "token_embedding_table.embedding.weight")
    assert lengths.max() - lengths.min() <= 1


def test_clicks_without_users_and_items_are_counted(tmp_path, with_features):
    (tmp_path / "clicks").mkdir()
    rows = [f"s{row % 7}\td{row % 3}\t{row % 2}" for row in range(200)]
    text = "\n".join(["site:token\tdevice:token\tlabel:float", *rows]) + "\n"
    (tmp_path / "clicks" / "clicks.inter").write_text(text)
    changes = {"data_path": str(tmp_path), "load_col": None, "threshold": None}
    changes |= {"USER_ID_FIELD": None, "ITEM_ID_FIELD": None}
    config, model, train_data, _, _ = prepare("DeepFM", {**with_features, **changes}, "clicks")
    DSLTrainer(config, model)
    dataset = train_data._dataset
    counts = field_counts(model, dataset)
    assert len(counts) == 2
    for rows in counts.values():
        assert torch.equal(rows, joined_counts(dataset, model.token_field_names))


def other_size(model):
    model.token_embedding_table.embedding = torch.nn.Embedding(30, 20)
    model.token_seq_embedding_table = torch.nn.ModuleDict({"class": torch.nn.Embedding(9, 20)})


def other_names(model):
    model.token_field_names, model.token_seq_field_names = ["user_id", "nothing"], [3]


def no_names(model):
    del model.token_field_names, model.token_seq_field_names


@pytest.mark.parametrize("change", [other_size, other_names, no_names])
def test_a_table_of_an_own_layout_is_left_out(with_features, change):
    config, model, train_data, _, _ = prepare("FM", with_features)
    change(model)
    DSLTrainer(config, model)
    names = {weight: name for name, weight in sparse_weights(model).items()}
    found = {names[weight] for weight in field_counts(model, train_data._dataset)}
    assert found and all(name.startswith("first_order_linear.") for name in found)
    start_weights(model, train_data._dataset, config["seed"])
    lengths = lengths_of(model, "token_embedding_table.embedding.weight")
    assert lengths.max() - lengths.min() <= 1
