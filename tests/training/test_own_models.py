"""Models of one's own: they train as dense RecBole trains them, are saved, loaded and gone on with."""

import glob
import json
import subprocess
import sys

import pytest
import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.model.abstract_recommender import GeneralRecommender
from recbole.model.loss import BPRLoss
from recbole.quick_start import run_recbole
from recbole.trainer import Trainer
from recbole.utils import InputType, get_trainer, init_seed
from torch import nn

import recbole_dsl
from recbole_dsl import DSLError, load_data_and_model, run_recbole_dsl
from recbole_dsl.training.trainer import DSLMixin
from tests.running import metrics


class Mine(GeneralRecommender):
    """Matrix factorisation with a bias for each item and a counter that its loss depends on."""

    input_type = InputType.PAIRWISE

    def __init__(self, config, dataset):
        super().__init__(config, dataset)
        self.users = nn.Embedding(self.n_users, config["embedding_size"])
        self.items = nn.Embedding(self.n_items, config["embedding_size"])
        self.bias = nn.Parameter(torch.zeros(self.n_items))
        self.loss = BPRLoss()
        self.seen = 0

    def calculate_loss(self, interaction):
        self.seen += 1
        users = self.users(interaction[self.USER_ID])
        scores = [
            (users * self.items(interaction[name])).sum(-1) + self.bias[interaction[name]]
            for name in (self.ITEM_ID, self.NEG_ITEM_ID)
        ]
        return self.loss(*scores) * (1 + 1 / self.seen)

    def predict(self, interaction):
        users, items = self.users(interaction[self.USER_ID]), interaction[self.ITEM_ID]
        return (users * self.items(items)).sum(-1) + self.bias[items]

    def full_sort_predict(self, interaction):
        return self.users(interaction[self.USER_ID]) @ self.items.weight.T + self.bias


def stock(options):
    config = Config(model=Mine, dataset="tiny", config_dict=dict(options))
    init_seed(config["seed"], config["reproducibility"])
    train_data, valid_data, test_data = data_preparation(config, create_dataset(config))
    init_seed(config["seed"], config["reproducibility"])
    trainer = Trainer(config, Mine(config, train_data._dataset))
    trainer.fit(train_data, valid_data, saved=False, show_progress=False)
    return trainer.evaluate(test_data, load_best_model=False)


def test_it_trains_as_dense_recbole_trains_it_at_density_one(options):
    result = run_recbole_dsl(Mine, "tiny", config_dict={**options, "density": 1}, saved=False)
    assert result["test_result"] == stock({**options, "density": 1})


def test_it_is_loaded_by_its_class_wherever_its_data_is_now(options, tmp_path):
    result = run_recbole_dsl(Mine, "tiny", config_dict=options)
    (file,) = glob.glob("saved/*.pth")
    with pytest.raises(
        DSLError, match=r"holds Mine, which is not a RecBole model; give its class as model_class$"
    ):
        load_data_and_model(file)
    with pytest.raises(DSLError, match=r"^model_class=Trainer: must be Mine"):
        load_data_and_model(file, model_class=Trainer)
    moved = tmp_path / "moved"
    moved.symlink_to(options["data_path"])
    config, model, _, _, _, test_data = load_data_and_model(file, data_path=str(moved), model_class=Mine)
    assert config["data_path"] == str(moved / "tiny")
    trainer = recbole_dsl.DSLTrainer(config, model)
    assert trainer.evaluate(test_data, load_best_model=False) == result["test_result"]


def test_it_goes_on(options):
    options = {**options, "topology": "fixed"}
    whole = run_recbole_dsl(Mine, "tiny", config_dict={**options, "checkpoint_dir": "whole"})
    run_recbole_dsl(Mine, "tiny", config_dict={**options, "epochs": 2, "checkpoint_dir": "parts"})
    resume = {"resume": glob.glob("parts/*.last")[0], "epochs": 4}
    assert metrics(run_recbole_dsl(Mine, config_dict=resume)) == metrics(whole)


def test_its_class_is_registered(options):
    recbole_dsl.register(Mine, density=0.2)
    try:
        assert issubclass(get_trainer(Mine.type, "Mine"), DSLMixin)
    finally:
        recbole_dsl.unregister(Mine)
    assert get_trainer(Mine.type, "Mine") is Trainer


# as scripts do that know nothing of us: taken before anything is registered
SCRIPT = """
import glob, json, sys
from recbole.config import Config
from recbole.quick_start import load_data_and_model, objective_function, run_recbole
from recbole.utils import get_trainer
from recbole.utils.case_study import full_sort_scores, full_sort_topk
import recbole_dsl
from recbole_dsl.sparse.modules import sparse_weights

options = json.loads(sys.argv.pop())
stock = options.pop("stock")
recbole_dsl.register("BPR", density=0.2)
result = run_recbole("BPR", "tiny", config_dict=dict(options))
(file,) = glob.glob("saved/BPR-*.pth")
config, model, dataset, train_data, valid_data, test_data = load_data_and_model(file)
assert type(config) is Config and config["density"] == 0.2 and len(sparse_weights(model)) == 2
trainer = get_trainer(config["MODEL_TYPE"], config["model"])(config, model)
assert trainer.evaluate(test_data, load_best_model=False) == result["test_result"]
users = dataset.token2id(dataset.uid_field, ["u1", "u2"])
scores = full_sort_scores(users, model, test_data)
assert full_sort_topk(users, model, test_data, k=3)[1].equal(scores.topk(3).indices)
trainer.resume_checkpoint(file)
trainer.epochs += 2
assert trainer.fit(train_data, valid_data, show_progress=False)[1] and trainer.start_epoch > 0
assert objective_function({**options, "model": "BPR", "dataset": "tiny"}, saved=False)["test_result"]
recbole_dsl.unregister()
assert load_data_and_model(file)[1].user_embedding.weight.shape == model.user_embedding.weight.shape
loaded = load_data_and_model(stock)[1]
assert not sparse_weights(loaded), "RecBole's own file stays what it is"
"""


def test_an_unchanged_script_loads_what_a_registered_model_was_saved_as(options, tmp_path):
    del options["density"]
    run_recbole("BPR", "tiny", config_dict={**options, "checkpoint_dir": "stock"})
    (stock,) = glob.glob("stock/*.pth")
    # as RecBole's function reads it without our shims
    torch.save(torch.load(stock), stock)
    given = json.dumps({**options, "stock": stock})
    done = subprocess.run([sys.executable, "-c", SCRIPT, given], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_saved_loaders_and_data_are_used_where_they_are_named(options):
    options = {**options, "save_dataloaders": True, "save_dataset": True}
    first = run_recbole_dsl("BPR", "tiny", config_dict=options)
    assert len(glob.glob("saved/tiny-*.pth")) == 2
    named = {
        "dataset_save_path": "saved/tiny-Dataset.pth",
        "dataloaders_save_path": "saved/tiny-for-BPR-dataloader.pth",
    }
    again = run_recbole_dsl("BPR", "tiny", config_dict={**options, **named, "save_dataset": False})
    assert metrics(again) == metrics(first)
