"""After a training the model is what the training left, though its cost has been measured."""

import pytest
import torch
from recbole.model.general_recommender import BPR
from recbole.quick_start import run_recbole
from recbole.trainer import Trainer

from recbole_dsl import DSLTrainer, dsl_trainer, run_recbole_dsl
from tests.running import prepare


class Caching(BPR):
    """Computes the representations of all items once, when they are first asked for."""

    def __init__(self, config, dataset):
        super().__init__(config, dataset)
        self.items, self.calls, self.kept = None, 0, []
        self.norm = torch.nn.BatchNorm1d(self.embedding_size)

    def calculate_loss(self, interaction):
        self.items = None
        return super().calculate_loss(interaction)

    def full_sort_predict(self, interaction):
        self.predict(interaction)
        return (self.user_embedding(interaction["user_id"]) @ self.items.T).view(-1)

    def predict(self, interaction):
        self.calls += 1
        if self.items is None:
            self.items = self.norm(self.item_embedding.weight)
            self.kept.append(self.items)
        user = self.user_embedding(interaction["user_id"])
        return (user * self.items[interaction["item_id"]]).sum(-1) if "item_id" in interaction else user


@pytest.mark.parametrize("saved", [False, True])
@pytest.mark.parametrize("validated", [False, True])
def test_a_model_that_caches_tests_as_that_of_recbole(options, saved, validated):
    results = []
    for kind in (Trainer, DSLTrainer):
        config, _, train_data, valid_data, test_data = prepare("BPR", {**options, "density": 1.0})
        torch.manual_seed(0)
        trainer = kind(config, Caching(config, train_data.dataset))
        trainer.fit(train_data, valid_data if validated else None, saved=saved, show_progress=False)
        calls = trainer.model.calls
        drawn = torch.rand(3).tolist()
        result = trainer.evaluate(test_data, load_best_model=False)
        if kind is DSLTrainer:
            print(trainer.cost)
            assert trainer.cost.flops.sparse > 0
        results.append((result, calls, len(trainer.model.kept), drawn))
    assert results[1] == results[0]


@pytest.mark.parametrize("model", ["SGL", "LightGCN", "NGCF", "DMF"])
def test_recbole_models_that_cache_test_as_recbole_does(options, model):
    options = {**options, "density": 1.0, "epochs": 2}
    runs = (run_recbole, run_recbole_dsl)
    results = [run(model, "tiny", config_dict=options, saved=False)["test_result"] for run in runs]
    assert results[1] == pytest.approx(results[0])


def test_the_model_is_what_the_training_left_below_density_one(options):
    for model in ("SGL", "LightGCN"):
        config, network, train_data, valid_data, test_data = prepare(model, options)
        trainer = dsl_trainer(Trainer)(config, network)
        trainer.fit(train_data, valid_data, saved=False, show_progress=False)
        first = trainer.evaluate(test_data, load_best_model=False)
        network.restore_user_e = network.restore_item_e = None
        assert trainer.evaluate(test_data, load_best_model=False) == first
