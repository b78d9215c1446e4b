"""What a model of one's own keeps beside its weights: nothing of it is lost or changed."""

import logging
from collections import OrderedDict, defaultdict
from typing import ClassVar

import numpy as np
import pytest
import torch
from recbole.model.general_recommender import BPR, LightGCN
from recbole.trainer import Trainer
from torch import nn

from recbole_dsl import DSLError, DSLTrainer
from recbole_dsl.checkpoint.checkpoint_file import read_checkpoint, write_checkpoint
from recbole_dsl.training.model_state import (
    derived_names,
    read_other_parameters,
    restore_model,
    save_other_parameters,
)
from tests.running import prepare

KEPT = {
    "tensor": torch.arange(6.0).view(2, 3),
    "integers": torch.arange(3),
    "halves": torch.ones(2, dtype=torch.float16),
    "array": np.arange(6, dtype=np.float64).reshape(2, 3).T,
    "big_endian": np.arange(3, dtype=">i2"),
    "no_entries": np.zeros((0, 4), dtype=np.uint32),
    "truth": np.array([True, False]),
    "complex_array": np.array([1 + 2j]),
    "days": np.array(["2024-01-01"], dtype="datetime64[D]"),
    "text_array": np.array(["a", "longer"]),
    "scalar": np.float32(0.1),
    "number": 3,
    "flag": True,
    "nothing": None,
    "text": "words",
    "raw": b"\x00\xff",
    "a_complex": 1 - 2j,
    "pair": (1, (2.5, "x")),
    "a_set": {1, 2},
    "a_frozenset": frozenset({"a"}),
    "tensors": [torch.ones(2), (torch.zeros(1), np.ones(2))],
    "by_pair": {(1, 2): np.ones(3), "__kind__": "mine"},
    "ordered": OrderedDict(b=1, a=2),
    "default": defaultdict(list, {1: [(torch.ones(1),)]}),
}


class Keeper(BPR):
    """Keeps things of every kind, and needs them in training."""

    other_parameter_name: ClassVar = [*KEPT, "item_embedding", "counted"]

    def __init__(self, config, dataset):
        super().__init__(config, dataset)
        for name, value in KEPT.items():
            setattr(self, name, value)
        self.register_buffer("counted", torch.zeros(1))

    def calculate_loss(self, interaction):
        self.counted += 1
        return super().calculate_loss(interaction) + 0 * self.tensor.sum() * float(self.array.sum())


def trained(model_class, options, trainer_class=DSLTrainer, **changes):
    base = "LightGCN" if issubclass(model_class, LightGCN) else "BPR"
    config, _, train_data, valid_data, test_data = prepare(base, {**options, **changes})
    torch.manual_seed(0)
    model = model_class(config, train_data.dataset)
    trainer = trainer_class(config, model)
    trainer.fit(train_data, valid_data, show_progress=False)
    return trainer, train_data, test_data


def assert_same(a, b):
    assert type(a) is type(b)
    if isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype and torch.equal(a, b)
    elif isinstance(a, (np.ndarray, np.generic)):
        assert a.dtype == b.dtype and np.array_equal(a, b)
    elif isinstance(a, dict):
        assert list(a) == list(b) and getattr(a, "default_factory", None) is getattr(b, "default_factory", None)
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b)
        for one, other in zip(a, b):
            assert_same(one, other)
    else:
        assert a == b


def test_what_a_model_keeps_stays_and_comes_back_from_the_file_as_it_was(options):
    trainer, train_data, test_data = trained(Keeper, options)
    other = Keeper(trainer.config, train_data.dataset)
    for name in KEPT:
        assert_same(getattr(trainer.model, name), KEPT[name])
        setattr(other, name, None)
    restore_model(other, read_checkpoint(trainer.saved_model_file), trainer.saved_model_file)
    for name in KEPT:
        assert_same(getattr(other, name), KEPT[name])
    assert other.counted > 0
    assert trainer.evaluate(test_data)


def test_a_model_of_ones_own_is_that_of_recbole_at_density_one(options):
    results = [trained(Keeper, options, kind, density=1.0) for kind in (Trainer, DSLTrainer)]
    stock, ours = (trainer.train_loss_dict for trainer, _, _ in results)
    assert ours == pytest.approx(stock, rel=1e-5)
    (stock, _, test_data), (ours, _, _) = results
    assert ours.evaluate(test_data, load_best_model=False) == stock.evaluate(test_data, load_best_model=False)


class WithObject(BPR):
    other_parameter_name: ClassVar = ["number", "made_of"]

    def __init__(self, config, dataset):
        super().__init__(config, dataset)
        self.number, self.made_of = 1, {"a": [logging.getLogger()]}


@pytest.mark.parametrize(
    "value", [{"a": [logging.getLogger()]}, np.array([None]), defaultdict(lambda: 1), iter("a")]
)
def test_what_cannot_be_saved_is_named_before_training(options, value, tmp_path):
    config, _, train_data, _, _ = prepare("BPR", options)
    model = WithObject(config, train_data.dataset)
    model.made_of = value
    trainer = DSLTrainer(config, model)
    before = model.item_embedding.weight.clone()
    with pytest.raises(DSLError, match="other_parameter_name=made_of of WithObject: ") as refused:
        trainer.fit(train_data, show_progress=False)
    assert "\n" not in str(refused.value)
    assert torch.equal(before, model.item_embedding.weight) and not list(tmp_path.rglob("*.pth"))
    trainer.fit(train_data, saved=False, show_progress=False)


class Late(WithObject):
    """Makes one of its other parameters in training."""

    def __init__(self, config, dataset):
        super().__init__(config, dataset)
        del self.made_of

    def calculate_loss(self, interaction):
        self.made_of = (self.number, interaction["user_id"][:2])
        return super().calculate_loss(interaction)


def test_what_is_made_in_training_is_saved_too(options):
    trainer, train_data, _ = trained(Late, options)
    other = Late(trainer.config, train_data.dataset)
    restore_model(other, read_checkpoint(trainer.saved_model_file), trainer.saved_model_file)
    number, users = other.made_of
    assert type(other.made_of) is tuple and number == 1 and users.dtype == torch.int64


@pytest.mark.parametrize(
    "name", ["forward", "predict", "training", "item_embedding", "counted", "_parameters", "__class__"]
)
def test_a_file_sets_nothing_that_the_model_does_not_list(options, name):
    trainer, _, _ = trained(Keeper, options)
    path = trainer.saved_model_file
    checkpoint = read_checkpoint(path)
    checkpoint["other_parameter"][name] = torch.zeros(1)
    checkpoint["state_dict"]["item_embedding.weight.values"] += 1
    write_checkpoint(path, checkpoint)
    before = trainer.model.item_embedding.weight.clone()
    with pytest.raises(DSLError, match=f"has other_parameter={name}, which Keeper does not list"):
        restore_model(trainer.model, read_checkpoint(path), path)
    assert torch.equal(before, trainer.model.item_embedding.weight)


@pytest.mark.parametrize(
    "value",
    [
        {"__kind__": "array", "dtype": "O", "shape": [1], "data": torch.zeros(8, dtype=torch.uint8)},
        {"__kind__": "array", "dtype": "f4", "shape": [2**40], "data": torch.zeros(4, dtype=torch.uint8)},
        {"__kind__": "array", "dtype": "f4", "shape": [1], "data": "text"},
        {"__kind__": "eval", "data": []},
        {"__kind__": "set", "data": [[]]},
        {"__kind__": "tuple"},
        {"__kind__": "bytes", "data": 2**50},
        {"__kind__": "defaultdict", "data": [], "factory": "system"},
    ],
)
def test_damaged_data_is_one_line(options, value):
    model = prepare("BPR", options)[1]
    model.other_parameter_name, model.mine = ["mine"], 1
    with pytest.raises(DSLError, match=r"^model_file=a file: other_parameter is damaged: .*$"):
        read_other_parameters(model, {"mine": value}, "a file")


class OwnGraph(LightGCN):
    def __init__(self, config, dataset):
        super().__init__(config, dataset)
        self.other_parameter_name = [*self.other_parameter_name, "popularity", "restore_mine"]
        self.popularity = self.restore_mine = torch.ones(self.n_items)


class LikeAGraph(BPR):
    """Names as RecBole's models do what it cannot do without."""

    other_parameter_name: ClassVar = ["restore_user_e"]

    def __init__(self, config, dataset):
        super().__init__(config, dataset)
        self.restore_user_e = torch.ones(self.n_users)

    def calculate_loss(self, interaction):
        return super().calculate_loss(interaction) * self.restore_user_e.mean()


def test_only_what_recbole_derives_is_dropped(options):
    trainer, _, test_data = trained(OwnGraph, options)
    trainer.evaluate(test_data)
    model = trainer.model
    assert model.restore_user_e is None and model.restore_item_e is None
    assert model.popularity.sum() == model.restore_mine.sum() == model.n_items
    saved = read_checkpoint(trainer.saved_model_file)["other_parameter"]
    assert set(saved) == {"popularity", "restore_mine"}
    trainer, _, _ = trained(LikeAGraph, options)
    assert derived_names(trainer.model) == frozenset() and trainer.model.restore_user_e.sum() > 1
    assert set(read_checkpoint(trainer.saved_model_file)["other_parameter"]) == {"restore_user_e"}


def test_tensors_are_saved_without_history_and_the_memory_around_them(options):
    model = prepare("BPR", options)[1]
    model.other_parameter_name = ["part", "with_history", "parameter"]
    model.part, model.with_history = torch.zeros(1000)[:2], torch.ones(2, requires_grad=True) * 2
    object.__setattr__(model, "parameter", nn.Parameter(torch.ones(2)))
    saved = save_other_parameters(model)
    assert saved["part"].untyped_storage().nbytes() == 8
    assert all(type(tensor) is torch.Tensor and not tensor.requires_grad for tensor in saved.values())
