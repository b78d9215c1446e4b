"""Two processes, of gloo on CPUs: one topology, one set of files, and the metrics of one process."""

import os
import shutil
from glob import glob
from pathlib import Path

import pytest

from recbole_dsl import DSLError, load_data_and_model, run_recbole_dsl
from recbole_dsl.training.quick_start import run
from tests.training.process_runs import (
    in_two,
    stop_and_go_on,
    train_each,
    train_on_data_of_their_own,
    trainer_and_data,
)

METRICS = ["Recall", "NDCG", "MRR", "Precision", "GAUC"]
ALL = {"inter": "*", "user": "*", "item": "*"}
KNOWLEDGE = {"inter": ["user_id", "item_id"], "kg": "*", "link": "*"}
MODELS = {
    "LightGCN": {},
    "MultiVAE": {"train_neg_sample_args": None, "train_batch_size": 16},
    "SASRec": {
        "train_neg_sample_args": None, "hidden_size": 8, "inner_size": 16,
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]}, "MAX_ITEM_LIST_LENGTH": 10,
    },
    "NeuMF": {},
    "FM": {
        "load_col": ALL, "threshold": {"rating": 4}, "train_neg_sample_args": None,
        "eval_args": {"mode": "labeled"}, "metrics": ["AUC", "LogLoss"], "valid_metric": "AUC",
    },
    "CKE": {"load_col": KNOWLEDGE},
}  # fmt: skip


@pytest.fixture
def many(options):
    return {**options, "metrics": METRICS, "topk": [5, 10], "valid_metric": "NDCG@10", "eval_batch_size": 500}


def check_one_training(found, many, model, choice):
    """Both processes had the same after every update, and one process finds the same metrics in the file."""
    first, second = found["digests"]
    assert first == second and len(first) > 2
    for part in ("files", "valid", "test", "growth"):
        assert found[part][0] == found[part][1]
    config, _, _, _, _, test = load_data_and_model(found["files"][0])
    if config["eval_args"]["mode"]["test"] in ("full", "labeled"):
        trainer, data = trainer_and_data(model, {**many, **choice})
        trainer.eval_collector.data_collect(data.train)
        alone = trainer.evaluate(test, model_file=found["files"][0])
        assert dict(alone) == found["test"][0]


def test_every_grow_criterion_makes_the_same_topology_in_both(many):
    choices = [{"grow": grow} for grow in ("gradient", "momentum", "random", "random_unfired")]
    # 40 users do not divide by two batches of 10, 20 by two; and the last part of a batch is left to one process
    choices += [{"budget": "erk", "prune": "taylor", "density": 0.2, "grow_memory": 0.5}]
    for choice, found in zip(choices, in_two(train_each, ["BPR"], choices, **many)):
        check_one_training(found, many, "BPR", choice)
        assert found["bytes"] == [4 * alive for alive in found["alive"]]
        if "grow_memory" in choice:
            cap = 0.5 * 4 * 8 * (41 + 51)
            assert 0 < found["growth"][0] <= cap
    assert len(glob("saved/*.pth")) == len(glob("saved/*.last")) == len(choices)


@pytest.mark.by_hand
@pytest.mark.parametrize("model", MODELS)
def test_models_of_every_family_in_two_processes(many, model):
    (found,) = in_two(train_each, [model], [MODELS[model]], **many)
    check_one_training(found, many, model, MODELS[model])


def test_a_stopped_training_goes_on_in_two_processes_to_the_bit_and_in_one(options):
    options = {**options, "update_interval": 7, "epochs": 4}
    whole, resumed, file, left = in_two(stop_and_go_on, "BPR", 2, **options)
    assert whole == resumed and len(set(whole)) == 1
    with open(file, "wb") as again:
        again.write(left)
    result = run_recbole_dsl("BPR", "tiny", config_dict={**options, "resume": file})
    assert result["test_result"]["ndcg@10"] > 0


@pytest.mark.parametrize(
    "model, choice, message",
    [
        ("RecVAE", {"train_neg_sample_args": None}, "model=RecVAE: must be trained by one process: it has two"),
        ("BPR", {"learner": "sparse_adam"}, "learner=sparse_adam: must be an optimizer of dense gradients"),
        ("BPR", {"budget": "global"}, "budget=global: must be uniform or erk with more than one process"),
        ("BPR", {"save_dataset": True}, "save_dataset=True: must be False with several processes"),
        ("Pop", {}, "model=Pop: must be a model with weights trained by gradients"),
        ("BPR", {"process_timeout": 0}, "process_timeout=0: must be a number in"),
        ("BPR", {"process_timeout": "soon"}, "process_timeout=soon: must be a number in"),
        (
            "S3Rec",
            {"train_stage": "pretrain", "train_neg_sample_args": None, "load_col": None},
            "train_stage=pretrain: must be finetune with several processes",
        ),
    ],
)
def test_what_one_process_must_train_is_refused_before_any_starts(options, model, choice, message):
    with pytest.raises(DSLError) as error:
        run(model, "tiny", config_dict={**options, **choice}, nproc=2, port="1")
    assert str(error.value).startswith(message) and "\n" not in str(error.value)
    assert os.listdir() == []


def test_a_port_that_another_run_has_is_one_line(options):
    import socket

    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(DSLError, match=rf"^port={port}: must be a free port of this machine"):
            run("BPR", "tiny", config_dict=options, nproc=2, port=str(port))


def test_a_launch_that_nobody_answers_is_one_line(options):
    from tests.training.process_runs import free_port

    port = str(free_port())
    with pytest.raises(DSLError, match="must be where the launch with group_offset=0 waits"):
        run(
            "BPR", "tiny", config_dict={**options, "process_timeout": 1},
            nproc=1, world_size=2, group_offset=1, port=port,
        )  # fmt: skip


def test_data_in_another_order_on_one_machine_is_refused_by_both(many, data_path):
    other = Path("other/tiny")
    shutil.copytree(Path(data_path, "tiny"), other)
    head, *lines = (other / "tiny.inter").read_text().splitlines()
    (other / "tiny.inter").write_text("\n".join([head, *lines[::-1]]) + "\n")
    told = in_two(train_on_data_of_their_own, [data_path, "other"], **many)
    assert told == ["data_path: must hold the same data in every process, its lines in the same order"] * 2
