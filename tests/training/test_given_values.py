"""Values that a model brings with it are where its training starts."""

import pytest
import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.model.general_recommender import BPR
from recbole.trainer import Trainer
from recbole.utils import get_model, init_seed
from torch import nn

from benchmarks.model_cases import CASES, model_of
from recbole_dsl import DSLTrainer, sparse_weights
from recbole_dsl.initialisation.freshness import pretrained_values
from recbole_dsl.sparse.parameter_sites import find_sites
from tests.running import prepare
from tests.training.test_models import PACKAGES, options_of

STARTED, KEPT = "start from a factorisation of the training data: ", "start from the largest of the values"


def started(trainer, train_data, caplog):
    """What the log says of the start, and the first weights."""
    caplog.set_level("INFO")
    trainer._start_weights(train_data)
    return [r.getMessage() for r in caplog.records if STARTED in r.getMessage() or KEPT in r.getMessage()]


def assert_largest(weight, given):
    dense = weight.dense().detach()
    alive = weight.alive_in(0, weight.n_rows)
    assert torch.equal(dense[alive], given[alive])
    assert given.abs()[alive].min() >= given.abs()[~alive].max()


def test_a_dense_model_that_was_trained_goes_on_from_its_largest_weights(options, caplog):
    config, model, train_data, valid_data, _ = prepare("BPR", options)
    Trainer(config, model).fit(train_data, valid_data, saved=False, show_progress=False)
    given = {name: p.detach().clone() for name, p in model.named_parameters()}
    trainer = DSLTrainer(config, model)
    (line,) = started(trainer, train_data, caplog)
    assert KEPT in line and all(f"{name} (" in line for name in given)
    for name, weight in sparse_weights(model).items():
        assert_largest(weight, given[name])


def test_a_loaded_state_is_kept(options, caplog):
    config, model, train_data, _, _ = prepare("BPR", options)
    given = {name: torch.randn_like(p) for name, p in model.named_parameters()}
    model.load_state_dict(given)
    trainer = DSLTrainer(config, model)
    assert KEPT in started(trainer, train_data, caplog)[0]
    for name, weight in sparse_weights(model).items():
        assert_largest(weight, given[name])


@pytest.mark.parametrize(
    "sparse_init, says", [(None, [KEPT]), ("svd", [STARTED]), ("magnitude", []), ("uniform", [])]
)
def test_the_user_decides(options, caplog, sparse_init, says):
    config, model, train_data, _, _ = prepare("BPR", {**options, "sparse_init": sparse_init})
    model.load_state_dict({name: torch.randn_like(p) for name, p in model.named_parameters()})
    lines = started(DSLTrainer(config, model), train_data, caplog)
    assert len(lines) == len(says) and all(word in line for word, line in zip(says, lines))


class PretrainedItems(BPR):
    def __init__(self, config, dataset):
        super().__init__(config, dataset)
        vectors = torch.randn(self.n_items, 3) @ torch.randn(3, self.embedding_size)
        self.vectors = vectors.numpy().copy()
        self.item_embedding = nn.Embedding.from_pretrained(vectors, freeze=False)


def test_a_pretrained_table_beside_a_fresh_one(options, caplog):
    # large enough to tell that the users' is fresh
    config, _, train_data, _, _ = prepare("BPR", {**options, "embedding_size": 16})
    model = PretrainedItems(config, train_data._dataset)
    users = model.user_embedding.weight.detach().clone()
    trainer = DSLTrainer(config, model)
    (line,) = started(trainer, train_data, caplog)
    assert KEPT in line and "item_embedding.weight (" in line and "user_embedding" not in line
    assert_largest(sparse_weights(model)["item_embedding.weight"], torch.from_numpy(model.vectors))
    # factors have other columns than the items' vectors
    table = model.user_embedding.weight.detach()
    ratio = table[table != 0] / users[table != 0]
    assert torch.allclose(ratio, ratio[0].expand_as(ratio), rtol=1e-4)


def test_a_pretrained_model_is_that_of_recbole_at_density_one(options):
    losses = []
    for kind in (Trainer, DSLTrainer):
        config, _, train_data, _, test_data = prepare("BPR", {**options, "density": 1.0})
        torch.manual_seed(0)
        trainer = kind(config, PretrainedItems(config, train_data.dataset))
        trainer.fit(train_data, saved=False, show_progress=False)
        losses.append((list(trainer.train_loss_dict.values()), trainer.evaluate(test_data, load_best_model=False)))
    assert losses[1][0] == pytest.approx(losses[0][0], rel=1e-5) and losses[1][1] == losses[0][1]


@pytest.mark.parametrize(
    "family, case", [(f, case) for f, cases in CASES.items() for case in cases if case != "S3Rec-finetune"]
)
def test_recboles_models_are_fresh(family, case, data_path):
    if model_of(case) in PACKAGES:
        pytest.importorskip(PACKAGES[model_of(case)])
    config = Config(config_dict=options_of(family, case, data_path))
    train_data, _, _ = data_preparation(config, create_dataset(config))
    init_seed(config["seed"], config["reproducibility"])
    model = get_model(config["model"])(config, train_data._dataset)
    places = find_sites(model)
    trained = {n: p for n, p in places.parameters.items() if p.requires_grad and p.dim() > 1}
    expected = set()
    if case == "KD_DAGFM":
        expected = {"student_network.connect_layer"}  # an identity matrix
    assert set(pretrained_values(trained, places.padding)) == expected


def test_the_entities_of_a_graph_are_kept(data_path, caplog):
    options = {**options_of("sequential", "GRU4RecKG", data_path), "freeze_kg": False}
    config = Config(config_dict=options)
    train_data, _, _ = data_preparation(config, create_dataset(config))
    vectors = train_data._dataset.get_preload_weight("ent_id")
    vectors[:] = torch.randn(len(vectors), 2) @ torch.randn(2, vectors.shape[1])
    model = get_model("GRU4RecKG")(config, train_data._dataset)
    given = model.entity_embedding.weight.detach().clone()
    trainer = DSLTrainer(config, model)
    lines = started(trainer, train_data, caplog)
    assert any(KEPT in line and "entity_embedding.weight (" in line for line in lines)
    weight = sparse_weights(model)["entity_embedding.weight"]
    alive = weight.alive_in(0, weight.n_rows)
    assert torch.equal(weight.dense()[alive], given[alive])
