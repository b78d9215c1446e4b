"""What threads of one process may do beside a training, which comes out as if it had been alone."""

import builtins
import glob
import logging
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import recbole.quick_start
import torch
from recbole.model.context_aware_recommender import kd_dagfm

import recbole_dsl
from recbole_dsl import DSLError, load_data_and_model, objective_function, register, run_recbole_dsl, unregister
from recbole_dsl.report.writing import write_report
from recbole_dsl.serving import Recommender, export
from tests.running import metrics, prepare, train


@pytest.fixture
def trained(options):
    """A checkpoint of a network that draws when it is made."""
    trainer, _ = train("MultiVAE", {**options, "checkpoint_dir": "earlier", "epochs": 1})
    return trainer.saved_model_file


def beside(training, *others):
    """(result of ``training``, what each of ``others`` gave or raised), each in its own thread, over and over."""
    ended, outcomes = threading.Event(), [[] for _ in others]

    def repeat(other, outcome):
        while True:
            is_last = ended.is_set()
            try:
                outcome.append(other())
            except Exception as error:
                outcome.append(error)
            if is_last or len(outcome) > 1:
                return

    with ThreadPoolExecutor(len(others) or 1) as pool:
        running = [pool.submit(repeat, *pair) for pair in zip(others, outcomes)]
        try:
            result = training()
        finally:
            ended.set()
        for one in running:
            one.result()
    return result, outcomes


def process_wide():
    return torch.load, type(sys.stdout), vars(kd_dagfm).get("eval"), logging.root.manager.disable, builtins.print


def test_loading_exporting_serving_and_reporting_leave_a_training_as_it_is(options, trained):
    options = {**options, "epochs": 3}
    alone = run_recbole_dsl("BPR", "tiny", config_dict={**options, "checkpoint_dir": "alone"})
    # RecBole's log has colorama wrap it
    before = process_wide()
    export(trained, "model.rdsl")
    served = Recommender.load("model.rdsl").recommend(["u1", "u2"], 5)

    def loads():
        return load_data_and_model(trained)[1].state_dict()

    def exports():
        return str(export(trained, f"{threading.get_ident()}.rdsl", compare=False).n_bytes)

    def serves():
        return Recommender.load("model.rdsl").recommend(["u1", "u2"], 5)

    def reports():
        write_report([trained], "page.html")

    result, outcomes = beside(
        lambda: run_recbole_dsl("BPR", "tiny", config_dict={**options, "checkpoint_dir": "beside"}),
        *(loads, exports, serves, serves, reports),
    )
    assert metrics(result) == metrics(alone)
    states = [torch.load(glob.glob(f"{folder}/*.last")[0]) for folder in ("alone", "beside")]
    assert all(torch.equal(v, states[1]["state_dict"][k]) for k, v in states[0]["state_dict"].items())
    assert not [one for some in outcomes for one in some if isinstance(one, Exception)]
    assert all(str(one) == str(served) for one in outcomes[2] + outcomes[3])
    assert process_wide() == before


def test_a_second_training_is_refused_and_the_first_is_as_alone(options):
    _, network, train_data, valid_data, _ = prepare("BPR", options)
    trainer = recbole_dsl.DSLTrainer(train_data._dataset.config, network)
    alone = run_recbole_dsl("BPR", "tiny", config_dict={**options, "checkpoint_dir": "alone"})
    register("NeuMF", density=0.5)
    stock = {"data_path": options["data_path"], "epochs": 1, "show_progress": False, "checkpoint_dir": "stock"}
    during = []
    attempts = [
        lambda: run_recbole_dsl("KD_DAGFM", "tiny", config_dict={**options, "checkpoint_dir": "second"}),
        lambda: objective_function({**options, "model": "BPR", "dataset": "tiny", "checkpoint_dir": "second"}),
        lambda: trainer.fit(train_data, valid_data),
        lambda: recbole.quick_start.run_recbole("NeuMF", "tiny", config_dict=stock),
    ]
    try:
        _, network, train_data_of_first, valid_data_of_first, _ = prepare("BPR", options)
        first = recbole_dsl.DSLTrainer(train_data_of_first._dataset.config, network)

        def at_evaluation(epoch, score):
            with ThreadPoolExecutor(1) as pool:
                for attempt in attempts:
                    during.append(pool.submit(attempt).exception(timeout=20))

        _, result = first.fit(train_data_of_first, valid_data_of_first, callback_fn=at_evaluation)
    finally:
        unregister("NeuMF")
    assert result == alone["best_valid_result"]
    assert len(during) >= len(attempts)
    for error in during:
        assert isinstance(error, DSLError)
        assert "another thread of this one trains BPR" in str(error)
        assert "\n" not in str(error)
    assert not os.path.exists("second")
    assert not os.path.exists("stock")


def test_evaluating_beside_a_training_is_right(options):
    trainer, test_data = train("BPR", {**options, "epochs": 1, "checkpoint_dir": "earlier"})
    expected = trainer.evaluate(test_data)
    alone = run_recbole_dsl("MultiVAE", "tiny", config_dict={**options, "checkpoint_dir": "alone"})
    result, (found,) = beside(
        lambda: run_recbole_dsl("MultiVAE", "tiny", config_dict={**options, "checkpoint_dir": "beside"}),
        lambda: trainer.evaluate(test_data),
    )
    assert metrics(result) == metrics(alone)
    assert all(one == expected for one in found)


def test_networks_are_loaded_by_many_threads_at_once(trained):
    before = process_wide()
    export(trained, "model.rdsl")
    with ThreadPoolExecutor(4) as pool:
        loaded = list(pool.map(lambda _: Recommender.load("model.rdsl"), range(12)))
    assert process_wide() == before
    first = loaded[0].recommend(["u1", "u2"], 5)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda one: one.recommend(["u1", "u2"], 5), loaded))
    assert all(str(one) == str(first) for one in found)


def test_an_interrupted_training_lets_the_next_thread_train(options):
    def interrupt(epoch, score):
        raise KeyboardInterrupt

    _, network, train_data, valid_data, _ = prepare("BPR", options)
    trainer = recbole_dsl.DSLTrainer(train_data._dataset.config, network)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(train_data, valid_data, callback_fn=interrupt)
    with ThreadPoolExecutor(1) as pool:
        result = pool.submit(run_recbole_dsl, "BPR", "tiny", config_dict=options).result(timeout=60)
    assert result["test_result"]
