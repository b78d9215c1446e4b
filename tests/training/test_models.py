"""Every RecBole model that is trained by gradients, in every variant: sparse by the density option alone."""

import pytest
import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.utils import get_model, get_trainer, init_seed

from benchmarks.model_cases import BROKEN, CASES, model_of
from recbole_dsl import dsl_trainer, load_data_and_model, objective_function
from recbole_dsl.options.recbole_models import trainable_models
from recbole_dsl.sparse import deferred
from recbole_dsl.sparse.modules import sparse_weights
from recbole_dsl.training.trainer import DSLMixin

PACKAGES = {"NCL": "faiss", "KGIN": "torch_scatter", "MCCLK": "torch_scatter", "KGAT": "dgl"}
INTERACTIONS = ["user_id", "item_id", "rating", "timestamp"]
FEATURES = {"user": ["user_id", "age", "gender"], "item": ["item_id", "release_year", "class"]}
GRAPH = {"kg": ["head_id", "relation_id", "tail_id"], "link": ["item_id", "entity_id"]}
COLUMNS = {"context-aware": FEATURES, "sequential": FEATURES, "knowledge-aware": GRAPH}
# histories of "tiny" are not longer
SMALL = {"MAX_ITEM_LIST_LENGTH": 15, "hidden_size": 16, "inner_size": 16, "mlp_hidden_size": [16]}

all_cases = pytest.mark.parametrize(
    "family, case", [(f, case) for f, cases in CASES.items() for case in cases if case != "S3Rec-finetune"]
)


def options_of(family, case, data_path):
    """Options of a run on "tiny" that fit its size."""
    model = model_of(case)
    options = {
        "model": model,
        "dataset": "tiny",
        "data_path": data_path,
        "load_col": {"inter": INTERACTIONS, **COLUMNS.get(family, {})},
        "epochs": 4,
        "pretrain_epochs": 4,
        "eval_step": 4,
        "train_batch_size": 128,
        "show_progress": False,
        "n_memory": 4,
        **(SMALL if family == "sequential" else {}),
        **CASES[family][case],
        "num_clusters": 8,
        "reranker_CAN_NUM": 10,
        "metrics_k": 10,
    }
    if model == "GRU4RecKG":
        options.update(
            load_col={"inter": INTERACTIONS, **GRAPH, "ent": ["ent_id", "ent_emb"]},
            additional_feat_suffix=["ent"],
            alias_of_entity_id=["ent_id"],
            preload_weight={"ent_id": "ent_emb"},
            eval_args={"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "full"},
        )
    return options


@pytest.fixture(autouse=True)
def optional_packages(request, monkeypatch):
    """Skip what is not installed; let KGAT call the DGL of today by its names of then."""
    case = request.node.callspec.params.get("case", "") if hasattr(request.node, "callspec") else ""
    if model_of(case) in PACKAGES:
        package = pytest.importorskip(PACKAGES[model_of(case)])
        if model_of(case) == "KGAT":
            _speak_the_dgl_of_kgat(package, monkeypatch)


def _speak_the_dgl_of_kgat(dgl, monkeypatch):
    usual = dgl.edge_subgraph

    def edge_subgraph(graph, edges, preserve_nodes):
        return usual(graph, edges, relabel_nodes=not preserve_nodes)

    monkeypatch.setattr(dgl, "edge_subgraph", edge_subgraph)
    monkeypatch.setattr(dgl.DGLGraph, "adjacency_matrix", dgl.DGLGraph.adj_external)


@pytest.fixture
def trainers(monkeypatch):
    """The sparse trainers that are used in the test."""
    used, fit = [], DSLMixin.fit
    monkeypatch.setattr(DSLMixin, "fit", lambda self, *a, **k: (used.append(self), fit(self, *a, **k))[1])
    return used


@all_cases
def test_trains_sparse_evaluates_saves_and_reloads(family, case, data_path, trainers, monkeypatch):
    # as if its tables were large
    monkeypatch.setattr(deferred, "SMALLEST", 0)
    options = options_of(family, case, data_path)
    result = objective_function({**options, "density": 0.1, "update_interval": 1, "stop_fraction": 1})
    (trainer,) = trainers
    assert len(trainer.topology_updates) >= 3
    assert trainer.topology.step == trainer.topology.total_steps, "the schedule spans the training"
    sizes = trainer.sparsity.weights.values()
    room = sum(weight.capacity for weight in sizes)
    assert trainer.sparsity.nnz == min(round(0.1 * trainer.sparsity.numel), room) and result["test_result"]
    # no forward of one interaction is defined for those that train in another way than they predict
    assert trainer.cost.flops.sparse is None or 0 <= trainer.cost.flops.sparse <= trainer.cost.flops.dense

    config, model, _, _, _, test_data = load_data_and_model(trainer.saved_model_file)
    reloaded = dsl_trainer(get_trainer(config["MODEL_TYPE"], config["model"]))(config, model)
    results = []
    for one in (trainer, reloaded):
        # negative samples, node dropout and Gumbel noise are drawn while evaluating
        init_seed(1, True)
        results.append(one.evaluate(test_data, load_best_model=one is trainer))
    assert results[0] == results[1]


@all_cases
def test_density_one_gives_the_loss_of_stock_recbole(family, case, data_path):
    losses = []
    for sparse in (False, True):
        config = Config(config_dict={**options_of(family, case, data_path), "epochs": 1, "pretrain_epochs": 1})
        init_seed(config["seed"], config["reproducibility"])
        train_data, _, _ = data_preparation(config, create_dataset(config))
        init_seed(config["seed"], config["reproducibility"])
        model = get_model(config["model"])(config, train_data._dataset)
        trainer_class = get_trainer(config["MODEL_TYPE"], config["model"])
        if sparse:
            config["density"], config["update_interval"] = 1.0, 1
            trainer_class = dsl_trainer(trainer_class)
        init_seed(config["seed"], config["reproducibility"])
        trainer = trainer_class(config, model)
        trainer.fit(train_data, None, saved=False, show_progress=False, verbose=False)
        losses.append(trainer.train_loss_dict[0])
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


def test_every_model_has_a_case():
    cases = {model_of(case) for cases in CASES.values() for case in cases}
    assert set(trainable_models()) - set(BROKEN) <= cases <= set(trainable_models())


@pytest.mark.parametrize(
    "family, case, stages",
    [
        ("sequential", "S3Rec-pretrain", ["pretrain", "finetune"]),
        ("general", "RaCT", ["actor_pretrain", "critic_pretrain", "finetune"]),
    ],
)
def test_a_stage_continues_with_the_topology_of_the_one_before(family, case, stages, data_path, trainers):
    options = {**options_of(family, case, data_path), "density": 0.1, "update_interval": 2, "topology": "fixed"}
    # no step of pre-training is saved but the last
    options["save_step"] = 99
    for stage in stages:
        options["train_stage"] = stage
        assert objective_function(options)["test_result"]
        options["pre_model_path"] = trainers[-1].saved_model_file
    # the encoder of RaCT is frozen in its second stage
    first, last = (sparse_weights(trainers[i].model) for i in (0, -1))
    assert set(first) <= set(last)
    for name, weight in first.items():
        assert torch.equal(weight.positions(), last[name].positions())
    assert trainers[-1].sparsity.weights and load_data_and_model(trainers[-1].saved_model_file)


def test_the_prior_of_recvae_becomes_a_sparse_copy(data_path, trainers):
    objective_function({**options_of("general", "RecVAE", data_path), "density": 0.1, "update_interval": 1})
    model = trainers[0].model
    weights = sparse_weights(model)
    copies = {name: w for name, w in weights.items() if name.startswith("prior.encoder_old.")}
    assert len(copies) == len([name for name in weights if name.startswith("encoder.")]) > 0
    assert all(not copy.values.requires_grad for copy in copies.values())
    largest = max(weight.numel for weight in weights.values())
    assert max(tensor.numel() for tensor in model.state_dict().values()) < largest / 2
