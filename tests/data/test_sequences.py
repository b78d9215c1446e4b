import copy
import pickle
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from recbole.config import Config
from recbole.data import create_dataset
from recbole.data.dataset import SequentialDataset
from recbole.data.interaction import Interaction, cat_interactions
from recbole.utils import init_seed

from recbole_dsl.data import kept_dataset
from recbole_dsl.data.lazy_columns import Histories, LazyColumn, Lengths, Spans, Targets
from recbole_dsl.data.loading import load_data
from recbole_dsl.data.sequences import SequenceInteraction
from recbole_dsl.training.configs import build_config
from tests.data.stock import made, plain, random_states, require_equal, stock

ALL = {
    "inter": ["user_id", "item_id", "rating", "timestamp"],
    "user": ["user_id", "age", "gender"],
    "item": ["item_id", "release_year", "class"],
}
NEGATIVES = {"distribution": "uniform", "sample_num": 2, "alpha": 1.0, "dynamic": False, "candidate_num": 0}
COMMON = {
    "model": "SASRec",
    "dataset": "tiny",
    "train_batch_size": 47,
    "eval_batch_size": 100,
    "MAX_ITEM_LIST_LENGTH": 6,
    "train_neg_sample_args": None,
    "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
}
CASES = {
    "items": {},
    "long": {"MAX_ITEM_LIST_LENGTH": 50},
    "several fields": {"load_col": ALL},
    "numerical": {"load_col": ALL, "numerical_features": ["rating", "timestamp"]},
    "normalised": {"load_col": ALL, "normalize_all": True},
    "one column dropped": {"load_col": ALL, "unused_col": {"inter": ["rating_list"]}},
    "divided by ratios": {"eval_args": {"split": {"RS": [0.7, 0.1, 0.2]}, "order": "TO", "group_by": None}},
    "divided by time": {"eval_args": {"split": {"TS": [0.7, 0.1, 0.2]}, "order": "TO", "group_by": "user"}},
    "pairs": {"train_neg_sample_args": NEGATIVES, "loss_type": "BPR"},
    "pairs, dynamic": {
        "train_neg_sample_args": {**NEGATIVES, "dynamic": True, "candidate_num": 3},
        "loss_type": "BPR",
    },
    "points": {"model": "DIN", "train_neg_sample_args": NEGATIVES, "load_col": ALL},
    "sampled evaluation": {"eval_args": {"mode": "uni9", "order": "TO", "split": {"LS": "valid_and_test"}}},
    "masked": {"transform": "mask_itemseq", "mask_ratio": 0.4},
    "inverse": {"transform": "inverse_itemseq"},
    "cropped": {"transform": "crop_itemseq", "eta": 0.6},
    "reordered": {"transform": "reorder_itemseq", "beta": 0.6},
    "by worker": {"worker": 1},
    "of its own": {"model": "DIEN", "train_neg_sample_args": NEGATIVES},
    "with a graph": {
        "model": "GRU4RecKG",
        "eval_args": {"order": "TO"},
        "load_col": {**ALL, "kg": ["head_id", "relation_id", "tail_id"], "link": ["item_id", "entity_id"]},
    },
}


class Scores:
    """Stands for a model whose scores choose the hardest of several candidates."""

    device = torch.device("cpu")
    eval = train = staticmethod(lambda: None)

    def predict(self, batch: Interaction) -> torch.Tensor:
        return torch.sin(batch["item_id_list"].sum(1) * 50.0 + batch["item_id"])


def epochs(options: dict, make: Callable[[dict], tuple] = made) -> list:
    """Two epochs of batches, with evaluations, and the states of the random numbers after each."""
    _, *loaders = make(options)
    loaders[0].get_model(Scores())
    return [found for loader in 2 * loaders for found in ([plain(batch) for batch in loader], random_states())]


def loaded(options: dict) -> tuple:
    """What `made` gives, by our loader of data."""
    config = Config(options["model"], options["dataset"], config_dict=options)
    init_seed(config["seed"], config["reproducibility"])
    data = load_data(config)
    return data.dataset, data.train, data.valid, data.test


@pytest.mark.parametrize("name", CASES)
def test_batches_of_histories_are_those_of_recbole(name, data_path, tmp_path, monkeypatch):
    monkeypatch.setattr(kept_dataset, "_WORTH", 0)
    options = {**COMMON, "data_path": data_path, **CASES[name], "data_cache": str(tmp_path)}
    with stock():
        theirs = epochs(options)
    require_equal(epochs(options), theirs)
    require_equal(epochs(options, loaded), theirs)
    # and from the cache
    if options["model"] not in ("DIEN", "GRU4RecKG"):
        # these have datasets of their own; of others, nothing is divided again
        monkeypatch.setattr(SequentialDataset, "build", None)
    require_equal(epochs(options, loaded), theirs)


def test_what_models_read_of_the_data_is_that_of_recbole(data_path):
    def read() -> list:
        dataset, train, _, _ = made({**COMMON, "data_path": data_path, "load_col": ALL})
        data = train._dataset
        torch.manual_seed(0)
        matrices = [data.inter_matrix("csr", field).toarray().tolist() for field in (None, "rating")]
        data.inter_feat.sort(["item_id", "timestamp"])
        return [*matrices, *data.history_item_matrix(), str(data.inter_feat), len(data), plain(dataset.inter_feat)]

    with stock():
        theirs = read()
    require_equal(read(), theirs)


def test_nothing_is_written_out_before_it_is_read(data_path):
    data = load_data(build_config("SASRec", "tiny", None, {**COMMON, "data_path": data_path, "load_col": ALL}))
    next(iter(data.train)), next(iter(data.valid)), data.train._dataset.inter_matrix(), str(data.train._dataset)
    for one in (data.dataset, data.train._dataset, data.valid._dataset, data.test._dataset):
        raw = one.inter_feat.interaction.uncut()
        assert all(isinstance(value, LazyColumn) for value in raw.values())


def test_a_dataset_of_the_users_own_may_change_histories_after_recbole_made_them(data_path, monkeypatch):
    class Own(SequentialDataset):
        def data_augmentation(self):
            super().data_augmentation()
            self.inter_feat["item_id_list"][:, 0] = 7
            self.inter_feat["twice_list"] = 2 * self.inter_feat["item_id_list"]
            self.set_field_property("twice_list", self.field2type["item_id_list"], None, 6)

    monkeypatch.setattr("recbole.data.dataset.SASRecDataset", Own, raising=False)
    options = {**COMMON, "data_path": data_path}
    with stock():
        theirs = epochs(options)
    require_equal(epochs(options), theirs)


# what RecBole, its models and users do with an Interaction; each is given it and a number
OPERATIONS = {
    "one": lambda data, k: data[k % len(data)],
    "slice": lambda data, k: data[k % 5 : k % 5 + 9],
    "list": lambda data, k: data[[k % len(data), 0, -1]],
    "array": lambda data, k: data[np.arange(k % 7)],
    "tensor": lambda data, k: data[torch.arange(k) % len(data)],
    "mask": lambda data, k: data[data["length"] > k % 4],
    "repeat": lambda data, k: data.repeat(k % 3 + 1),
    "interleave": lambda data, k: data.repeat_interleave(k % 3 + 1),
    "to": lambda data, k: data.to("cpu", *[["a_list"], ["user"]][k % 2 :]),
    "cpu": lambda data, k: data.cpu(),
    "other device": lambda data, k: Interaction(
        {name: torch.zeros(column.shape) for name, column in plain(data.to("meta")).items()}
    ),
    "copy": lambda data, k: copy.copy(data),
    "deep copy": lambda data, k: copy.deepcopy(data),
    "pickle": lambda data, k: pickle.loads(pickle.dumps(data)),
    "of dict": lambda data, k: Interaction(data.interaction),
    "of pairs": lambda data, k: Interaction(dict(data.interaction.items())),
    "of dict copy": lambda data, k: Interaction(data.interaction.copy() | {"new": data["user"]}),
    "keywords": lambda data, k: Interaction(dict(**data.interaction)),
    "numpy": lambda data, k: Interaction({name: torch.tensor(value) for name, value in data.numpy().items()}),
    "cat": lambda data, k: Interaction({n: cat_interactions([data, data])[n] for n in data.columns}),
}
IN_PLACE = {
    "shuffle": lambda data, k: data.shuffle(),
    "sort": lambda data, k: data.sort("b"),
    "sort by history": lambda data, k: data.sort("a_list") if len(data) else None,
    "drop": lambda data, k: data.drop("b_list") if "b_list" in data else None,
    "delete": lambda data, k: data.__delitem__("b_list") if "b_list" in data else None,
    "set": lambda data, k: data.__setitem__("b_list", torch.full((len(data), 2), k)),
    "write": lambda data, k: data["b_list"].fill_(k) if "b_list" in data else None,
    "update": lambda data, k: data.update(data[torch.arange(len(data)).flip(0)]),
    "attribute": lambda data, k: data.a_list.mul_(2),
    "prefix": lambda data, k: data.add_prefix("x_") or data.add_prefix("") or rename(data),
}


def rename(data: Interaction) -> None:
    for name in data.columns:
        data[name.removeprefix("x_")] = data[name]
        data.drop(name)


@settings(max_examples=60)
@given(st.lists(st.tuples(st.sampled_from([*OPERATIONS, *IN_PLACE]), st.integers(0, 40)), max_size=5))
def test_histories_pass_through_every_operation_as_written_out_columns_do(steps):
    histories = SequenceInteraction(augmented())
    written = Interaction({name: histories[name].clone() for name in histories.columns})
    histories = SequenceInteraction(augmented())
    for number, (name, k) in enumerate(steps):
        found = []
        for data in (histories, written):
            torch.manual_seed(number)
            try:
                changed = OPERATIONS[name](data, k) if name in OPERATIONS else IN_PLACE[name](data, k)
                found.append(changed if name in OPERATIONS else data)
            except (IndexError, RuntimeError, ZeroDivisionError, TypeError) as error:
                found.append(type(error))
        if isinstance(found[1], type):
            assert found[0] is found[1]
            return
        histories, written = found
        assert len(histories) == len(written) and str(histories) == str(written)
    require_equal(plain(histories), plain(written))


def augmented() -> dict:
    starts, lengths = torch.tensor([0, 0, 0, 1, 4, 4, 7]), torch.tensor([1, 2, 3, 3, 1, 3, 1])
    spans = Spans(starts, lengths)
    return {
        "user": torch.tensor([0, 0, 0, 0, 1, 1, 2]),
        "b": Targets(spans, torch.tensor([5.0, 3.0, 1.0, 1.0, 2.0, 0.0, 2.0, 9.0, 5.0])),
        "length": Lengths(spans),
        "a_list": Histories(spans, torch.arange(1, 9), (3,)),
        "b_list": Histories(spans, torch.rand(8, 2, generator=torch.Generator().manual_seed(0)), (3, 2)),
    }


@settings(max_examples=40)
@given(
    st.lists(st.tuples(st.integers(1, 5), st.integers(0, 3)), min_size=2, max_size=25),
    st.integers(1, 6),
    st.booleans(),
    st.booleans(),
)
def test_histories_of_any_data_are_those_of_recbole(tmp_path_factory, lines, longest, with_tags, as_numbers):
    folder = tmp_path_factory.mktemp("any") / "any"
    folder.mkdir()
    text = ["user_id:token\titem_id:token\ttimestamp:float\tprice:float\ttags:token_seq\tweights:float_seq"]
    for number, (user, time) in enumerate(lines):
        tags = " ".join(f"t{n}" for n in range(1 + number % 3))
        text.append(f"u{user}\ti{number % 7}\t{time}\t{number / 3}\t{tags}\t{number} 0.5 {time}")
    (folder / "any.inter").write_text("\n".join(text) + "\n")
    columns = ["user_id", "item_id", "timestamp", "price", *(["tags", "weights"] if with_tags else [])]
    options = {
        **COMMON,
        "dataset": "any",
        "data_path": str(folder.parent),
        "MAX_ITEM_LIST_LENGTH": longest,
        "load_col": {"inter": columns},
        "numerical_features": ["price", "timestamp"] if as_numbers else [],
    }

    def read() -> list:
        dataset = create_dataset(Config("SASRec", "any", config_dict=options))
        dataset._change_feat_format()
        return [plain(dataset.inter_feat), str(dataset.inter_feat), sorted(map(str, dataset.field2seqlen.items()))]

    with stock():
        theirs = read()
    require_equal(read(), theirs)
