"""What RecBole makes of atomic files by the options that it documents, and what ours makes of them."""

import pickle
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.data.dataset import Dataset
from recbole.data.interaction import Interaction
from recbole.utils import KGDataLoaderState, init_seed

from recbole_dsl.data import kept_dataset, loading
from recbole_dsl.data.fast_dataset import fast_class
from recbole_dsl.data.loaders import data_preparation as our_preparation
from recbole_dsl.data.loading import _made as _made_of_files
from recbole_dsl.data.loading import _no_default_pickles

TOKENS = st.sampled_from(["u1", "2", "10", "é", "x-y", "01", "a b", "1e3", "z" * 9])
INTERVALS = st.sampled_from([None, "[0,inf)", "[2,inf)", "(1,3]", "[1,2];[4,9)", "[3,inf)"])


@st.composite
def files(draw):
    """Texts of .inter, .user and .item, or None where there is no such file."""
    n = draw(st.integers(30, 80))
    random = np.random.default_rng(draw(st.integers(0, 999)))
    users = draw(st.lists(TOKENS, min_size=3, max_size=6, unique=True))
    items = [*draw(st.lists(TOKENS, min_size=2, max_size=4, unique=True)), *(f"i{k}" for k in range(16))]
    rows = [
        (users[random.integers(len(users))], items[min(random.geometric(0.3), len(items)) - 1],
         random.integers(1, 6), random.integers(20) / 4, "abc"[random.integers(3)], "p q r"[: random.integers(6)])
        for _ in range(n)
    ]  # fmt: skip
    has_gaps = draw(st.booleans())
    inter = "user_id:token\titem_id:token\trating:float\ttimestamp:float\tcontext:token\ttags:token_seq\n"
    for user, item, rating, time, context, tags in rows:
        gap = has_gaps and random.random() < 0.1
        inter += f"{'' if gap else user}\t{item}\t{rating}\t{time}\t{'' if gap else context}\t{tags.strip()}\n"
    user = item = None
    if draw(st.booleans()):
        user = "user_id:token\tage:float\tjob:token\n"
        user += "".join(f"{u}\t{random.integers(9)}\t{'xyz'[random.integers(3)]}\n" for u in [*users[1:], "only"])
    if draw(st.booleans()):
        item = "item_id:token\tprice:float\tclass:token_seq\tsizes:float_seq\n"
        item += "".join(f"{i}\t{random.integers(9) or ''}\tc{k % 3} d\t1 {k}\n" for k, i in enumerate(items[:-2]))
    return {"inter": inter, "user": user, "item": item}


OPTIONS = st.fixed_dictionaries(
    {
        "user_inter_num_interval": INTERVALS,
        "item_inter_num_interval": INTERVALS,
        "rm_dup_inter": st.sampled_from([None, None, "first", "last"]),
        "filter_inter_by_user_or_item": st.booleans(),
        "val_interval": st.sampled_from([None, {"rating": "[1,5]"}, {"context": ["a", "c"], "rating": "(1,inf)"}]),
        "threshold": st.sampled_from([None, {"rating": 3}]),
        "load_col": st.sampled_from([None, {"inter": ["user_id", "item_id", "rating", "timestamp", "context"]}]),
        "normalize_all": st.booleans(),
        "alias_of_item_id": st.sampled_from([None, ["context"]]),
        "unused_col": st.sampled_from([None, {"inter": ["context"]}]),
        "seed": st.integers(0, 9),
    }
)
EVALUATION = st.fixed_dictionaries(
    {
        "split": st.sampled_from(
            [{"RS": [0.8, 0.1, 0.1]}, {"RS": [2, 1, 1]}, {"RS": [0.5, 0, 0.5]}, {"TS": [0.6, 0.2, 0.2]}]
            + [{"LS": mode} for mode in ("valid_and_test", "valid_only", "test_only")]
        ),
        "order": st.sampled_from(["RO", "TO"]),
        "group_by": st.sampled_from(["user", None]),
        "mode": st.sampled_from(["full", "uni5"]),
    }
)


@pytest.fixture(autouse=True, scope="module")
def small_files_are_kept_too():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kept_dataset, "_WORTH", 0)
        yield


# a failure takes minutes to be made smaller
@settings(max_examples=45, phases=[Phase.generate])
@given(texts=files(), options=OPTIONS, evaluation=EVALUATION, model=st.sampled_from(["BPR", "FM", "SASRec"]))
def test_everything_is_as_recbole_makes_it(tmp_path_factory, texts, options, evaluation, model):
    path = tmp_path_factory.mktemp("data")
    (path / "made").mkdir()
    for suffix, text in texts.items():
        if text is not None:
            (path / "made" / f"made.{suffix}").write_text(text)
    if model == "SASRec":
        options["train_neg_sample_args"] = None
        evaluation = {**evaluation, "order": "TO", "mode": "full"}
    if model == "FM":
        evaluation["mode"] = "labeled" if options["threshold"] else "uni5"
    options |= {"eval_args": evaluation, "data_cache": str(path / "cache")}
    theirs = _made(path, options, model, *_THEIRS)
    ours = _made(path, options, model, *_OURS)
    if isinstance(theirs, Exception):
        assert type(ours) is type(theirs), (theirs, ours)
        return
    _compare(theirs, ours)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loading, "_checked", None)
        _compare(theirs, _made(path, options, model, *_OURS))


_THEIRS = create_dataset, data_preparation
_OURS = partial(_made_of_files, file=None), our_preparation


def _made(path, options, model, load, divide, name="made"):
    config = Config(model, name, config_dict={"data_path": str(path), "show_progress": False, **options})
    init_seed(config["seed"], True)
    with _no_default_pickles(config):
        try:
            dataset = load(config)
        except Exception as error:
            return error
        frames = {name: getattr(dataset, name).copy() for name in dataset.feat_name_list}
        try:
            return dataset, frames, divide(config, dataset)
        except Exception as error:
            return error


def _compare(theirs, ours):
    for name, frame in theirs[1].items():
        pd.testing.assert_frame_equal(frame, ours[1][name])
    (theirs, _, their_loaders), (ours, _, our_loaders) = theirs, ours
    _compare_datasets(theirs, ours)
    for one, other in zip(their_loaders, our_loaders):
        assert type(one) is type(other)
        for loader in (one, other) if hasattr(one, "set_mode") else ():
            loader.set_mode(KGDataLoaderState.RSKG)
        _compare_datasets(one._dataset, other._dataset)
        batches, others = map(_batches, (one, other))
        assert len(batches) == len(others)
        for batch, its in zip(batches, others):
            _compare_batches(batch, its)


def _batches(loader):
    np.random.seed(1)
    for one in (loader, *(getattr(loader, f"{name}_dataloader", None) for name in ("general", "kg"))):
        if hasattr(one, "generator"):
            one.generator.manual_seed(1)
    return list(loader)


def _compare_datasets(theirs, ours):
    left_out = {"config", "logger", "seq_sampler"}
    assert vars(theirs).keys() - left_out == vars(ours).keys() - left_out
    for name, value in vars(theirs).items():
        if name in left_out:
            continue
        other = getattr(ours, name)
        if isinstance(value, Interaction):
            _compare_batches(value, other)
        elif name in ("field2id_token", "alias", "_preloaded_weight"):
            assert list(value) == list(other)
            for key in value:
                np.testing.assert_array_equal(value[key], other[key])
                assert value[key].dtype == other[key].dtype
        elif name == "field2token_id":
            assert list(value) == list(other)
            assert {key: dict(ids) for key, ids in other.items()} == value
        else:
            assert np.all(np.asarray(value == other)), name
            assert list(value or ()) == list(other or ()) if isinstance(value, dict) else True
    assert str(theirs) == str(ours)


def _compare_batches(one, other):
    if isinstance(one, Interaction):
        assert one.columns == other.columns and len(one) == len(other)
        for name in one.columns:
            assert one[name].dtype == other[name].dtype
            torch.testing.assert_close(one[name], other[name], rtol=0, atol=0, equal_nan=True)
    elif isinstance(one, torch.Tensor):
        torch.testing.assert_close(one, other)
    elif isinstance(one, (tuple, list)):
        if len(one) == 4 and one[1] is not None and isinstance(one[1], tuple):
            # sets have an order of their own
            assert _pairs(one[1]) == _pairs(other[1]) and _pairs(one[2:]) == _pairs(other[2:])
            one, other = one[:1], other[:1]
        for value, its in zip(one, other, strict=True):
            _compare_batches(value, its)
    else:
        assert one == other


def _pairs(columns):
    return sorted(zip(*(column.tolist() for column in columns)))


@pytest.mark.parametrize("model", ["CFKG", "KSR", "DIEN"])
def test_graphs_and_preloaded_vectors_too(data_path, model, tmp_path):
    options = {
        "load_col": None,
        "additional_feat_suffix": ["ent", "rel"],
        "preload_weight": {"ent_id": "ent_emb", "rel_id": "rel_emb"},
        "alias_of_entity_id": ["ent_id"],
        "alias_of_relation_id": ["rel_id"],
        "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "full"},
        "entity_kg_num_interval": "[2,inf)",
        "user_inter_num_interval": "[3,inf)",
    }
    if model == "KSR":
        options["train_neg_sample_args"] = None
    if model == "DIEN":
        options = {"eval_args": options["eval_args"], "load_col": None}
        options["eval_args"]["mode"] = "labeled"
        options["threshold"] = {"rating": 4}
    options["data_cache"] = str(tmp_path)
    theirs, ours, again = (_made(data_path, options, model, *way, name="tiny") for way in (_THEIRS, _OURS, _OURS))
    _compare(theirs, ours)
    _compare(theirs, again)
    # a sampler is no data
    assert bool(list(tmp_path.iterdir())) == (model != "DIEN")


@settings(max_examples=15)
@given(
    seed=st.integers(0, 99),
    row=st.sampled_from(["user", "item"]),
    field=st.sampled_from([None, "rating"]),
    most=st.sampled_from([None, 1, 4]),
)
def test_histories_are_as_recbole_makes_them(data_path, seed, row, field, most):
    options = {"data_path": data_path, "load_col": {"inter": ["user_id", "item_id", "rating"]}}
    found = []
    for load, _ in (_THEIRS, _OURS):
        dataset = load(Config("BPR", "tiny", config_dict=options))
        dataset._change_feat_format()
        torch.manual_seed(seed)
        found.append(dataset._history_matrix(row, field, most))
    for one, other in zip(*found):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)


@settings(max_examples=30)
@given(
    seed=st.integers(0, 99),
    distribution=st.sampled_from(["uniform", "popularity"]),
    n=st.integers(1, 3),
    one_user=st.booleans(),
)
def test_negative_items_are_those_that_recbole_draws(data_path, seed, distribution, n, one_user):
    negatives = {"distribution": distribution, "sample_num": 1, "alpha": 0.7, "dynamic": False, "candidate_num": 0}
    drawn = []
    for load, divide in (_THEIRS, _OURS):
        config = Config(
            "BPR", "tiny", config_dict={"data_path": data_path, "train_neg_sample_args": negatives, "seed": seed}
        )
        init_seed(seed, True)
        loaders = divide(config, load(config))
        users = np.random.randint(1, 2 if one_user else loaders[0]._dataset.user_num, 50)
        for loader in loaders:
            drawn.append(loader._sampler.sample_by_user_ids(users, users, n))
            used = loader._sampler.used_ids
            drawn.append([sorted(map(int, one)) for one in used])
            assert used[users[0]] == used[users][0]
    half = len(drawn) // 2
    for one, other in zip(drawn[:half], drawn[half:], strict=True):
        assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


def test_a_method_of_the_users_own_wins():
    class Own(Dataset):
        def leave_one_out(self, group_by, leave_one_mode):
            return "own"

        def _load_feat(self, filepath, source):
            return super()._load_feat(filepath, source)

    kind = fast_class(Own)
    assert kind.leave_one_out is Own.leave_one_out and kind._load_feat is Own._load_feat
    assert kind.split_by_ratio is not Dataset.split_by_ratio


def test_a_saved_dataset_is_recboles(data_path):
    dataset = _OURS[0](Config("BPR", "tiny", config_dict={"data_path": data_path}))
    read = pickle.loads(pickle.dumps(dataset))
    assert type(read) is Dataset and type(read.field2token_id["user_id"]) is dict
    assert type(dataset.copy(None)) is type(dataset)
