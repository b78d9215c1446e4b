import gc
import glob
import os
from types import FunctionType, ModuleType

import pytest
import torch
from recbole.trainer import KGTrainer, Trainer

from recbole_dsl import DSLConfig, DSLError, DSLTrainer, dsl_trainer, sparsify
from recbole_dsl.sparse.modules import sparse_weights
from tests.running import prepare, train
from tests.toy import exchange_at

LARGE = {"embedding_size": 64, "density": 0.1, "epochs": 2}


def test_takes_the_place_of_trainer_with_a_plain_config(options):
    del options["density"], options["update_interval"]
    config, model, train_data, valid_data, test_data = prepare("BPR", options)
    trainer = DSLTrainer(config, model)
    assert isinstance(trainer, Trainer)
    score, result = trainer.fit(train_data, valid_data, saved=True, show_progress=False)
    assert score == result["mrr@10"]
    assert trainer.evaluate(test_data)["recall@10"] > 0
    assert trainer.dsl_config == DSLConfig()
    assert trainer.sparsity.density == pytest.approx(0.1, abs=0.001)


def test_the_config_changed_in_the_script_is_followed(options):
    config, model, *_ = prepare("BPR", options)
    config["density"], config["sparse_init"] = 0.5, "erk"
    trainer = DSLTrainer(config, model)
    assert (trainer.dsl_config.density, trainer.dsl_config.budget) == (0.5, "erk")
    config["sparse_init"] = "magnitude"
    _, other, *_ = prepare("BPR", options)
    assert DSLTrainer(config, other).dsl_config.budget == "uniform", "nothing of the run before"


@pytest.mark.parametrize(("model", "wanted"), [("SASRec", 2), ("BPR", None)])
def test_a_sequential_model_exchanges_weights_in_every_epoch(options, model, wanted):
    small = {"hidden_size": 8, "n_heads": 2, "inner_size": 8, "n_layers": 1, "epochs": 2}
    columns = {"inter": ["user_id", "item_id", "timestamp"]}
    args = {"order": "TO", "split": {"LS": "valid_and_test"}}
    options |= {"load_col": columns, "eval_args": args, "train_neg_sample_args": None} if model == "SASRec" else {}
    assert train(model, {**options, **small})[0].topology.epochs == wanted


def test_updates_are_on_the_trainer_in_the_log_and_in_tensorboard(options, caplog):
    caplog.set_level("INFO")
    trainer, _ = train("BPR", options)
    updates = trainer.topology_updates
    steps = trainer.topology.step
    assert [u.step for u in updates] == list(range(3, int(0.75 * steps), 3)) and len(updates) > 2
    assert trainer.exploration_rate == updates[-1].exploration_rate > 0.3
    lines = [record.getMessage() for record in caplog.records if "topology update" in record.getMessage()]
    assert len(lines) == len(updates)
    assert all(name in lines[0] for name in trainer.sparsity.weights)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(glob.glob("log_tensorboard/*")[0])
    events.Reload()
    assert {"DSL/ratio", "DSL/exchanged", "DSL/exploration_rate", "DSL/density/user_embedding.weight"} <= set(
        events.Tags()["scalars"]
    )
    written = events.Scalars("DSL/exchanged")
    assert [(e.step, e.value) for e in written] == [(u.step, u.exchanged) for u in updates]


def test_the_cost_table_is_measured(options, caplog):
    caplog.set_level("INFO")
    trainer, _ = train("LightGCN", {**options, **LARGE})
    cost = trainer.cost
    dense = 41 * 64 + 51 * 64
    assert (cost.weights.dense, cost.weights.sparse) == (dense, round(0.1 * dense))
    assert cost.sparse_tensors.sparse == cost.weights.sparse and cost.dense_tensors.sparse == 0
    indices = sum(w.index_bytes for w in trainer.sparsity.weights.values())
    assert (cost.bytes.dense, cost.bytes.sparse) == (4 * dense, 4 * cost.weights.sparse + indices)
    # two moments each, and one counter per tensor
    assert (cost.optimizer_bytes.dense, cost.optimizer_bytes.sparse) == (
        8 * dense + 8,
        8 * cost.weights.sparse + 8,
    )
    assert cost.checkpoint_bytes.sparse == os.path.getsize(trainer.saved_model_file)
    assert 0 < cost.flops.sparse < cost.flops.dense
    assert cost.record_bytes.sparse == dense // 8 and "record of what was alive" in str(cost)
    assert 0 < cost.growth_bytes.sparse <= 4 * dense + 8 * (41 + 51)
    assert any(str(cost) in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize("model", ["BPR", "LightGCN", "MultiVAE"])
def test_nothing_as_large_as_a_dense_table_is_alive_after_training(model, options):
    options = {**options, **LARGE, "mlp_hidden_size": [200], "latent_dimension": 64, "train_batch_size": 16}
    _, stock, *_ = prepare(model, options)
    smallest_table = min(p.numel() for p in stock.parameters() if p.dim() == 2)
    del stock
    trainer, test_data = train(model, options)
    trainer.evaluate(test_data)
    gc.collect()
    seen, queue = {}, [trainer.model, trainer.optimizer, trainer.topology, trainer.sparsity, trainer.cost]
    queue.append(torch.load(trainer.saved_model_file, weights_only=True))
    while queue:
        thing = queue.pop()
        if id(thing) in seen or isinstance(thing, (type, str, ModuleType)):
            continue
        seen[id(thing)] = thing
        if isinstance(thing, FunctionType):
            # its globals are those of a module, in which other tests leave things
            queue += [*(thing.__closure__ or ()), thing.__defaults__, thing.__kwdefaults__]
            continue
        if isinstance(thing, torch.Tensor):
            queue += [thing.grad] if thing.is_leaf and thing.grad is not None else []
        elif str(type(thing).__module__).split(".")[0] in (
            "builtins",
            "collections",
            "torch",
            "recbole",
            "recbole_dsl",
        ):
            queue += gc.get_referents(thing)
    tensors = [t for t in seen.values() if isinstance(t, torch.Tensor)]
    values = [w.values for w in sparse_weights(trainer.model).values()]
    assert all(any(t is v for t in tensors) for v in values), "the walk reaches the weights"
    # the propagation matrix and the interaction matrices of RecBole are data
    of_model = [t for t in tensors if t.layout is torch.strided and t.is_floating_point()]
    assert max(t.numel() for t in of_model if t.dim() > 0) < smallest_table


def test_the_best_epochs_topology_is_what_is_tested(options):
    config, model, train_data, valid_data, test_data = prepare("BPR", {**options, "epochs": 6, "stopping_step": 6})
    trainer = DSLTrainer(config, model)
    trainer.fit(train_data, valid_data, show_progress=False)
    saved = torch.load(trainer.saved_model_file, weights_only=True)["state_dict"]
    with torch.no_grad():
        exchange_at(trainer.model.user_embedding._modules["weight"], [0], [1])
    first = trainer.evaluate(test_data)
    assert all(torch.equal(t, saved[name]) for name, t in trainer.model.state_dict().items())
    assert trainer.evaluate(test_data) == first


@pytest.mark.parametrize("options_of_growth", [{"grow": "gradient"}, {"grow": "random", "budget": "global"}])
def test_a_resumed_run_continues_as_if_it_had_not_stopped(options, options_of_growth):
    options = {
        **options,
        **options_of_growth,
        "update_interval": 2,
        "grow_window": 1,
        "stopping_step": 99,
        "eval_step": 1,
    }

    def run(resume_from=None):
        config, model, train_data, valid_data, _ = prepare("BPR", options)
        trainer = DSLTrainer(config, model)
        if resume_from:
            trainer.resume_checkpoint(resume_from)
        scores = {}
        trainer.fit(train_data, valid_data, show_progress=False, callback_fn=scores.__setitem__)
        return trainer, scores

    whole, scores = run()
    checkpoint = torch.load(whole.saved_model_file, weights_only=True)
    saved = checkpoint["epoch"]
    assert saved < 7, "the best epoch leaves something to continue"
    # the run goes on writing to the file that it resumes from
    torch.save(checkpoint, "copy.pth")
    resumed, later = run("copy.pth")
    assert later == {epoch: score for epoch, score in scores.items() if epoch > saved}
    assert resumed.topology_updates == whole.topology_updates
    assert resumed.best_valid_result == whole.best_valid_result
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, resumed.model.state_dict()[name])


def test_a_resumed_knowledge_aware_run_shuffles_both_of_its_loaders_on(options):
    graph = {"kg": ["head_id", "relation_id", "tail_id"], "link": ["item_id", "entity_id"]}
    options = {**options, "load_col": {**options["load_col"], **graph}, "topology": "fixed"}

    def run(epochs, resume_from=None):
        config, model, train_data, _, _ = prepare("CKE", {**options, "epochs": epochs})
        trainer = dsl_trainer(KGTrainer)(config, model)
        if resume_from:
            trainer.resume_checkpoint(resume_from)
        trainer.fit(train_data, show_progress=False)
        return trainer

    whole = run(2)
    run(1)._save_checkpoint(0, saved_model_file="first.pth")
    resumed = run(2, "first.pth")
    assert resumed.train_loss_dict[1] == whole.train_loss_dict[1]


def test_an_already_sparse_model_is_trained_as_it_is(options):
    config, model, train_data, valid_data, _ = prepare("BPR", options)
    report = sparsify(model, DSLConfig(density=0.2, targets="item_embedding"))
    trainer = DSLTrainer(config, model)
    assert trainer.sparsity.weights == report.weights
    trainer.fit(train_data, valid_data, show_progress=False)


@pytest.mark.parametrize("learner", ["adam", "adamw", "sgd", "adagrad", "rmsprop"])
def test_every_learner_trains(learner, options):
    trainer, _ = train("BPR", {**options, "learner": learner})
    assert trainer.sparsity.nnz == round(0.3 * (41 + 51) * 8)


def test_errors_come_before_anything_is_written(options):
    for change, message in (
        ({"density": 2}, "density=2"),
        ({"targets": "nothing"}, "targets=nothing"),
        ({"update_intervall": 5}, "did you mean update_interval"),
    ):
        config, model, *_ = prepare("BPR", {**options, **change})
        with pytest.raises(DSLError, match=message):
            DSLTrainer(config, model)
        assert os.listdir() == []


def test_a_model_without_gradients_is_refused(options):
    config, model, *_ = prepare("ItemKNN", options)
    with pytest.raises(DSLError, match="model=ItemKNN: must be a model with weights trained by gradients"):
        DSLTrainer(config, model)


@pytest.mark.parametrize("model", ["BPR", "NeuMF", "LightGCN", "SASRec"])
def test_sparse_adam_trains_and_resumes(model, options):
    options = {**options, "learner": "sparse_adam", "train_batch_size": 16, "epochs": 3, "update_interval": 7}
    if model == "SASRec":
        options.update(load_col=None, train_neg_sample_args=None, n_layers=1, n_heads=2, hidden_size=8)
    trainer, test_data = train(model, options)
    assert isinstance(trainer.optimizer, torch.optim.SparseAdam) and trainer.topology_updates
    assert trainer.sparsity.density == pytest.approx(0.3, abs=0.01)
    sparse = [w.values.grad.is_sparse for w in trainer.sparsity.weights.values() if w.values.grad is not None]
    assert any(sparse) == (model != "LightGCN"), "which reads whole tables"
    losses = list(trainer.train_loss_dict.values())
    assert losses[-1] < losses[0]
    result = trainer.evaluate(test_data)
    config, fresh, *_ = prepare(model, options)
    again = DSLTrainer(config, fresh)
    again.resume_checkpoint(trainer.saved_model_file)
    assert again.evaluate(test_data, load_best_model=False) == result


# the product of LightGCN's COO matrix has no mixed precision on the CPU, in RecBole either
@pytest.mark.parametrize("model", ["BPR", "NeuMF"])
@pytest.mark.parametrize("learner", ["adam", "sparse_adam"])
def test_mixed_precision_trains_and_keeps_the_weights_in_full(model, learner, options):
    trainer, test_data = train(model, {**options, "enable_amp": True, "learner": learner, "train_batch_size": 16})
    assert trainer.topology_updates and trainer.evaluate(test_data)
    for weight in trainer.sparsity.weights.values():
        assert weight.values.dtype is torch.float32 and weight.values.isfinite().all()


@pytest.mark.parametrize(
    "chosen",
    [
        lambda model: [model.user_embedding.weight, model.item_embedding.weight],
        lambda model: [{"params": [model.user_embedding.weight]}, {"params": model.item_embedding.weight}],
        lambda model: [("user", model.user_embedding.weight), ("item", model.item_embedding.weight)],
    ],
)
def test_the_topology_follows_an_optimizer_that_a_trainer_builds_over_tables(options, chosen):
    class Chosen(Trainer):
        def __init__(self, config, model):
            super().__init__(config, model)
            self.optimizer = self._build_optimizer(params=chosen(model))

    results = []
    for base in (Trainer, Chosen):
        config, network, train_data, valid_data, test_data = prepare("BPR", options)
        trainer = dsl_trainer(base)(config, network)
        trainer.fit(train_data, valid_data, saved=False, show_progress=False)
        assert trainer.topology_updates and trainer.optimizer in trainer.topology.optimizers
        results.append(trainer.evaluate(test_data, load_best_model=False))
    assert results[1] == results[0]
