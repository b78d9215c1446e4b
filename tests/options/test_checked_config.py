from pathlib import Path

import pytest
import torch.distributed as dist
from recbole import evaluator
from recbole.evaluator.base_metric import TopkMetric
from recbole.model.general_recommender import BPR

from recbole_dsl import DSLError, command_line_options, run, run_recbole_dsl
from recbole_dsl.distributed import process_group
from recbole_dsl.distributed.heartbeat import Heartbeat
from recbole_dsl.options import checked_config
from recbole_dsl.options.checked_config import CheckedConfig, refused_in_one_line
from recbole_dsl.options.checks import check_options
from recbole_dsl.options.recbole_models import trainable_models
from recbole_dsl.options.rules import Rule
from recbole_dsl.options.table import RULES
from recbole_dsl.training.configs import build_config

# RecBole's own defaults of these two order at random, which it then refuses for a sequential model
ORDERED_AT_RANDOM = {"GRU4RecKG", "KSR"}


@pytest.mark.parametrize("dataset", ["ml-100k", "other"])
def test_every_default_of_recbole_is_accepted(dataset):
    seen = set()
    for model in sorted(trainable_models().keys() - ORDERED_AT_RANDOM):
        try:
            config = CheckedConfig(model, dataset)
        except DSLError as error:
            # RecBole wants that to be given to models whose default is a loss over all items
            assert "train_neg_sample_args" in str(error)
            config = CheckedConfig(model, dataset, config_dict={"train_neg_sample_args": None})
        defaults = config.internal_config_dict
        check_options({**defaults, **config.external_config_dict}, config.internal_config_dict, config.model_class)
        # what RecBole makes of them is given again when a saved model is loaded
        check_options(config.final_config_dict, config.internal_config_dict, config.model_class)
        seen |= defaults.keys()
    assert len(seen & RULES.keys()) > 40


def test_from_python_the_line_is_that_of_the_command(options):
    with pytest.raises(DSLError, match=r"^embedding_size=0: must be an integer >= 1$"):
        run_recbole_dsl("BPR", "tiny", config_dict={**options, "embedding_size": 0})
    with pytest.raises(DSLError, match=r"^nproc=0: must be an integer >= 1$"):
        run("BPR", "tiny", config_dict=options, nproc=0)
    with pytest.raises(DSLError, match=r"^config_file_list=a.yaml: must be a list of YAML files$"):
        build_config("BPR", "tiny", "a.yaml", options)
    with pytest.raises(DSLError, match=r"^config_dict=\[1\]: must be a dict of options$"):
        build_config("BPR", "tiny", None, [1])
    assert list(Path().iterdir()) == []


class OwnModel(BPR):
    pass


def test_options_of_an_own_model_are_accepted_when_declared(options):
    own = {**options, "scheduler": "step", "seeds": [1], "epoch": 5}
    with pytest.raises(DSLError, match=r"unknown option scheduler: did you mean schedule.*own_options"):
        build_config(OwnModel, "tiny", None, own)
    config = build_config(OwnModel, "tiny", None, {**own, "own_options": ["scheduler", "seeds"]})
    assert config["scheduler"] == "step" and config["epoch"] == 5
    assert config.model_class is OwnModel


def test_an_own_model_may_give_an_option_of_recboles_models_another_meaning(options):
    assert build_config(OwnModel, "tiny", None, {**options, "n_layers": "many"})["n_layers"] == "many"


def test_an_own_trainer_may_know_other_learners(options, monkeypatch):
    import recbole.trainer

    class OwnModelTrainer(recbole.trainer.Trainer):
        def _build_optimizer(self, **kwargs):
            return super()._build_optimizer(**{**kwargs, "learner": "sgd"})

    options = {**options, "learner": "lion"}
    with pytest.raises(DSLError, match=r"^learner=lion: must be one of adam"):
        build_config(OwnModel, "tiny", None, options)
    monkeypatch.setattr(recbole.trainer, "OwnModelTrainer", OwnModelTrainer, raising=False)
    assert build_config(OwnModel, "tiny", None, options)["learner"] == "lion"


def test_a_string_that_python_fails_on_stays_one(options):
    words = command_line_options(
        ["--note=1/0", "--other=exit()", "--own_options=note,other", "-f", "x.json", "--a=b=c", "--d"]
    )
    config = build_config("BPR", "tiny", None, {**options, **words})
    assert (config["note"], config["other"]) == ("1/0", "exit()")


def test_an_exclude_of_ones_own_joins_what_a_model_needs(options):
    options = {**options, "load_col": None, "threshold": {"rating": 4}, "exclude": "attn*"}
    assert build_config("EulerNet", "tiny", None, options)["exclude"] == ["attn*", "mu"]


class Span(TopkMetric):
    """A metric of a program's own."""

    def calculate_metric(self, dataobject):
        top, _ = self.used_info(dataobject)
        return self.topk_result("span", top.cumsum(axis=1).astype(float))


def test_a_metric_that_is_added_after_a_first_run_is_taken(options, monkeypatch):
    run_recbole_dsl("BPR", "tiny", config_dict=options)
    for registry, value in (
        (evaluator.metric_types, Span.metric_type),
        (evaluator.metrics_dict, Span),
        (evaluator.metric_information, ["rec.topk"]),
    ):
        monkeypatch.setitem(registry, "span", value)
    # an option of its own is taken with it
    late = {**options, "metrics": ["NDCG", "span"], "valid_metric": "NDCG@10", "span_width": 3}
    result = run_recbole_dsl("BPR", "tiny", config_dict=late)
    assert "span@10" in result["test_result"]


@pytest.mark.parametrize(
    "own",
    [{"span_width": 3}, {"multi_gpus": True}, {"resume_checkpoint_file": "x"}],
    ids=lambda own: next(iter(own)),
)
def test_an_option_that_nothing_reads_is_refused_with_models_of_recbole_only(options, own):
    with pytest.raises(DSLError, match=rf"^unknown option {next(iter(own))}: nothing reads it \(.*own_options\)$"):
        build_config("BPR", "tiny", None, {**options, **own})
    build_config("BPR", "tiny", None, {**options, **own, "own_options": list(own)})
    build_config(OwnModel, "tiny", None, {**options, **own})


def test_options_that_hold_themselves_are_refused(options):
    endless = []
    endless.append(endless)
    with pytest.raises(DSLError, match=r"^config_dict: must hold at most"):
        build_config("BPR", "tiny", None, {**options, "own": endless})


def test_a_fault_of_a_rule_is_seen():
    for wrong in (lambda value: value / 0, lambda value: no_such_name):  # noqa: F821
        with pytest.raises((ZeroDivisionError, NameError)):
            Rule("a number", wrong).takes(1)


def test_a_fault_of_ours_is_seen_while_options_are_read(options, monkeypatch):
    monkeypatch.setattr(checked_config, "check_option_names", checked_config.check_options)
    with pytest.raises(AttributeError):
        build_config("BPR", "tiny", None, options)


def test_a_fault_of_what_is_called_is_one_line():
    with pytest.raises(DSLError, match=r"^the data: ValueError: "), refused_in_one_line("the data"):
        int("x")


@pytest.mark.parametrize("words", ["cannot restore the state", "the store of gloo", "connection"])
def test_the_words_of_an_error_do_not_make_it_one_of_a_connection(monkeypatch, words):
    heartbeat = Heartbeat(dist.HashStore(), rank=0, world_size=1, limit=0.01)
    monkeypatch.setattr(process_group, "_heartbeat", heartbeat)
    monkeypatch.setattr("recbole_dsl.distributed.heartbeat._SUSPICION", 0.01)
    with pytest.raises(RuntimeError, match=words), process_group.told_to_others():
        raise RuntimeError(words)


@pytest.mark.parametrize("metrics", [1, None, [1], {}, [["Recall"]]])
def test_metrics_of_another_kind_are_refused_in_one_line(options, metrics):
    with pytest.raises(DSLError, match=r"^metrics=.*: must be one of"):
        build_config("BPR", "tiny", None, {**options, "metrics": metrics})


@pytest.mark.parametrize(
    "given, line",
    [
        ({"model": "bpr"}, "model=bpr: did you mean BPR?"),
        ({"embedding_size": float("inf")}, "embedding_size=inf: must be an integer >= 1"),
        ({"embedding_size": 2**31}, "embedding_size=2147483648: must be at most 2147483647"),
    ],
    ids=str,
)
def test_what_is_nearly_right_is_refused_by_its_own_line(options, given, line):
    with pytest.raises(DSLError) as error:
        CheckedConfig(given.get("model", "BPR"), "tiny", config_dict={**options, **given})
    assert str(error.value) == line
