"""A search on the command line and in Python, by RecBole's HyperTuning."""

import glob
import json
import os
import re
from pathlib import Path

import pytest
import yaml
from recbole.trainer import HyperTuning

from recbole_dsl import DSLError, cli, load_data_and_model, run_recbole_dsl
from recbole_dsl.training.trainer import DSLMixin
from recbole_dsl.tuning.search import SearchSettings, run_search
from tests.tuning.searches import files, search, table

pytest.importorskip("hyperopt")
LINES = "learning_rate choice [0.01, 0.1]\n"


def test_the_command_leaves_a_table_the_best_options_and_its_model(options, capsys):
    Path("p.hyper").write_text(LINES + "targets choice [None, ['user_embedding']]\n")
    Path("base.yaml").write_text(yaml.safe_dump(options))
    cli.main("tune --model=BPR --dataset=tiny --config_files=base.yaml --params_file=p.hyper --output=o".split())
    rows = table("o")
    assert sorted(json.dumps(row["options"]) for row in rows) == sorted(
        json.dumps({"learning_rate": rate, "targets": targets})
        for rate in (0.01, 0.1)
        for targets in (None, ["user_embedding"])
    )
    best = json.loads(Path("o/best.json").read_text())
    assert best["score"] == max(row["score"] for row in rows) == best["valid"]["mrr@10"]
    out, err = capsys.readouterr()
    assert f"test result: recall@10 {best['test']['recall@10']:.4f}" in err
    assert re.findall("^[a-z]+", err, re.MULTILINE) == ["a", *4 * ["trial"], "best", "test", "o"]
    result = json.loads(out)
    assert result["test_result"] == best["test"] and result["best"]["file"] == best["file"]
    assert result["model_file"] == os.path.abspath("o/best.pth")
    assert sorted(os.listdir("o")) == [
        "best.json", "best.pth", "best.yaml", "plot.html", "search.json", "trials", "trials.jsonl"
    ]  # fmt: skip
    # every trial has files of its own, and they are what the table says
    assert len({os.path.dirname(row["file"]) for row in rows}) == 4
    for row in rows:
        assert load_data_and_model(f"o/{row['file']}")[0]["learning_rate"] == row["options"]["learning_rate"]
    again = run_recbole_dsl("BPR", "tiny", config_file_list=["o/best.yaml"])
    assert again["best_valid_score"] == best["score"] and again["test_result"] == best["test"]
    assert Path("o/best.pth").read_bytes() == Path(f"o/{best['file']}").read_bytes()


@pytest.mark.parametrize("algo, parameters", [("random", LINES), ("bayes", "learning_rate loguniform -6,-1\n")])
def test_a_search_by_chance_is_the_same_again(options, algo, parameters):
    for output in ("one", "other"):
        search(options, parameters, algo=algo, trials=3, output=output)
    one, other = ([(row["options"], row["score"]) for row in table(output)] for output in ("one", "other"))
    assert one == other and len(one) == (2 if algo == "random" else 3)


def test_an_interrupted_search_loses_nothing_and_goes_on(options, monkeypatch):
    whole = search(options, LINES + "weight_decay choice [0.0, 0.1]\n", output="whole")
    usual, count = DSLMixin._valid_epoch, [0]

    def valid_epoch(self, *args, **kwargs):
        count[0] += 1
        if count[0] == 2 * 4 + 3:
            raise KeyboardInterrupt
        return usual(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(DSLMixin, "_valid_epoch", valid_epoch)
        with pytest.raises(KeyboardInterrupt) as interrupt:
            search(options, LINES + "weight_decay choice [0.0, 0.1]\n", output="parts")
    assert interrupt.value.__notes__ == [f"to go on: the same command with --output={os.path.abspath('parts')}"]
    assert len(table("parts")) == 2 and os.path.isfile("parts/best.yaml")
    before = {file: Path(file).read_bytes() for file in glob.glob("parts/trials/[12]/*")}
    third = glob.glob("parts/trials/3/*.last")
    trained = []
    monkeypatch.setattr(
        DSLMixin, "_valid_epoch", lambda self, *a, **k: trained.append(self._epoch) or usual(self, *a, **k)
    )
    parts = search(options, LINES + "weight_decay choice [0.0, 0.1]\n", output="parts")
    # the third trial goes on after the second of its epochs
    assert trained == [2, 3, 0, 1, 2, 3]
    assert before == {file: Path(file).read_bytes() for file in before}
    assert glob.glob("parts/trials/3/*.last") == third
    assert [row["score"] for row in table("parts")] == [row["score"] for row in table("whole")]
    assert parts.test_result == whole.test_result and parts.best.options == whole.best.options


def test_a_trial_that_fails_does_not_end_the_search(options):
    # only the model knows that it has no such table
    result = search(options, "targets choice [['user_embedding'], ['table']]\n", output="o")
    failed, finished = sorted(table("o"), key=lambda row: row["status"])
    assert failed["status"] == "failed" and "targets=table: must match one of" in failed["error"]
    assert failed["score"] is None and result.best.trial == finished["trial"]
    # and is tried again by the search that goes on, with the same end
    assert search(options, "targets choice [['user_embedding'], ['table']]\n", output="o") == result
    with pytest.raises(DSLError, match="no trial could be trained, the first failed: targets=table"):
        search(options, "targets choice [['table']]\n", output="none")


def test_selection_is_on_the_validation_data_and_the_test_is_once(options, monkeypatch):
    tested = []
    usual = DSLMixin.evaluate

    def evaluate(self, data, load_best_model=True, **kwargs):
        tested.append(load_best_model)
        return usual(self, data, load_best_model, **kwargs)

    monkeypatch.setattr(DSLMixin, "evaluate", evaluate)
    search({**options, "epochs": 1}, LINES, output="o")
    assert tested.count(True) == 1


def test_a_metric_that_is_better_when_it_is_smaller(options):
    less = {
        **options,
        "load_col": {"inter": ["user_id", "item_id", "rating"]},
        "threshold": {"rating": 4},
        "metrics": ["LogLoss"],
        "valid_metric": "LogLoss",
        "eval_args": {"mode": "labeled"},
        "epochs": 1,
    }
    result = search(less, "learning_rate choice [0.0001, 0.05]\n", output="o", model="FM")
    assert result.best.score == min(row["score"] for row in table("o"))


def test_lists_and_none_reach_the_trial_as_they_are():
    """hyperopt makes tuples of lists, and RecBole fails on them in an exhaustive search."""
    from recbole_dsl.tuning.parameters import Parameter
    from recbole_dsl.tuning.with_recbole import _space, _values

    parameters = [Parameter(name, "choice", (None, [1], 2)) for name in ("a", "b")]
    drawn = []
    tuner = HyperTuning(
        lambda values, _: (
            drawn.append(_values(parameters, values))
            or {
                "model": "",
                "best_valid_score": 0.5,
                "valid_score_bigger": True,
                "best_valid_result": {},
                "test_result": 0,
            }
        ),
        params_dict=_space(parameters),
        early_stop=99,
    )
    tuner.run()
    assert len(drawn) == 9 and all({"a": a, "b": b} in drawn for a in (None, [1], 2) for b in (None, [1], 2))


@pytest.mark.parametrize(
    "lines, message",
    [
        ("density choice [0.5, 2]", r"^density=2: must be a number in \(0, 1\]"),
        ("density uniform 0.5,1.5", r"^density=1\.\d+: must be a number in \(0, 1\]"),
        ("density uniform 0,1", r"^density=0.0: must be a number in \(0, 1\]"),
        ("update_ratio loguniform -5,1", r"^update_ratio=2.718\d*: must be a number in \[0, 1\]"),
        ("update_interval uniform 1,5", r"^update_interval=3\.\d+: must be an integer >= 1"),
        ("embedding_size quniform 4,16,3.5", "^embedding_size=3.5: must be an integer >= 1"),
        # the step leads below the end
        ("update_interval quniform 1,9,4", "^update_interval=0: must be an integer >= 1"),
        ("grow choice ['gradient', 'gradients']", "^grow=gradients: must be one of gradient"),
        ('grow choice [\'__import__("os").mkdir("evil")\']', "^grow=__import__.*: must be one of gradient"),
        ("learner choice ['adam', 'adman']", "^learner=adman: must be one of adam"),
        (
            'learning_rate choice [0.1, \'0.1 if open("evil", "w") else 1\']',
            "^learning_rate=0.1 if .*must be a num",
        ),
        ("train_batch_size choice [128, None]", "^train_batch_size=None: must be an integer"),
        # each is allowed, but not together
        ("sparse_init choice ['svd', 'erk']\nbudget choice ['uniform', 'erk']", "^budget=uniform: must be erk or"),
        ("denisty choice [0.1]", "unknown option denisty: did you mean density"),
        ("lerning_rate choice [0.1]", "unknown option lerning_rate: did you mean learning_rate"),
        ("qqqqq choice [0.1]", "unknown option qqqqq: BPR has none of a name like it"),
        ("n_layers choice [1]", "unknown option n_layers"),
        ("checkpoint_dir choice ['evil']", "checkpoint_dir: must be the same for every trial"),
        ("dataset_save_path choice ['evil']", "dataset_save_path: must be the same for every trial"),
        ("gpu_id choice ['0']", "gpu_id: must be the same for every trial"),
        ("valid_metric choice ['MRR@10', 'NDCG@10']", "valid_metric: must be the same for every trial"),
        ("eval_step choice [1, 9]", r"^eval_step=9: must be an integer in \[1, epochs\]"),
        ("epochs choice [0, 4]", r"^eval_step=1: must be an integer in \[1, epochs\].*epochs=0"),
    ],
)
@pytest.mark.parametrize("engine", ["hyperopt", "ray"])
def test_what_may_be_drawn_is_checked_before_anything_starts(options, lines, message, engine):
    with pytest.raises(DSLError, match=message) as error:
        search(options, lines + "\n", output="o", engine=engine)
    assert "\n" not in str(error.value) and os.listdir() == ["p.hyper"]


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"engine": "optuna"}, "^engine=optuna: must be one of hyperopt, ray"),
        ({"algo": "grid"}, "^algo=grid: must be one of exhaustive"),
        ({"engine": "ray", "algo": "bayes"}, "^algo=bayes: must be exhaustive or random with engine=ray"),
        ({"trials": 0}, "^trials=0: must be an integer >= 1"),
        ({"trials": "many"}, "^trials=many: must be"),
        ({"scheduler": "asha"}, "^scheduler=asha: must be left out: only engine=ray takes it"),
        ({"engine": "ray", "early_stop": 3}, "^early_stop=3: must be left out: only engine=hyperopt takes it"),
        ({"engine": "ray", "scheduler": "pbt"}, "^scheduler=pbt: must be one of asha, fifo"),
        ({"engine": "ray", "trial_cpus": 0}, "^trial_cpus=0: must be a number > 0"),
        ({"engine": "ray", "address": "ray://x:1"}, "^address=ray://x:1: must be HOST:PORT or auto"),
        ({"engine": "ray", "max_failures": -1}, "^max_failures=-1: must be an integer >= 0"),
        ({"params_file": None}, "^params_file=None: must be a name"),
        ({"params_file": "nowhere"}, "^params_file=nowhere: must be an existing file"),
        (
            {"algo": "exhaustive", "lines": "learning_rate uniform 0,1"},
            "^algo=exhaustive: must be random or bayes",
        ),
    ],
)
def test_settings_that_cannot_be(options, settings, message):
    lines = settings.pop("lines", LINES)
    with pytest.raises(DSLError, match=message):
        search(options, lines, **{"output": "o", **settings})
    assert os.listdir() == ["p.hyper"]


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"checkpoint_dir": "here"}, "^checkpoint_dir=here: must be left out"),
        ({"resume": True}, "^resume=True: must be left out"),
        ({"nproc": 2}, "^nproc=2: must be left out"),
        ({"trails": 2}, "unknown option trails: did you mean trials"),
        ({"denisty": 0.5}, "unknown option denisty: did you mean density"),
        ({"max_evals": 4}, "unknown option max_evals: nothing reads it"),
        ({"density": 2}, "^density=2: must be a number"),
        ({"eval_step": 0}, "^eval_step=0: must be an integer in"),
        ({"dataset": "nowhere"}, "nowhere"),
    ],
)
def test_shared_options_that_cannot_be(options, changes, message):
    dataset = changes.pop("dataset", "tiny")
    with pytest.raises(DSLError, match=message):
        search({**options, **changes}, LINES, output="o", dataset=dataset)
    assert os.listdir() == ["p.hyper"]


def test_a_folder_of_anything_else_is_left_as_it_is(options):
    Path("full").mkdir()
    Path("full/thesis.txt").write_text("all of it")
    Path("file").write_text("")
    for output in ("full", "file"):
        with pytest.raises(DSLError, match=f"^output=.*{output}: must be empty, not there yet, or the folder of"):
            search(options, LINES, output=output)
    search({**options, "epochs": 1}, LINES, output="o")
    before = files("o")
    with pytest.raises(DSLError, match=r"^output=.*o: holds another search: its parameters is"):
        search({**options, "epochs": 1}, "learning_rate choice [0.3]\n", output="o")
    with pytest.raises(DSLError, match=r"^output=.*o: holds another search: its options is"):
        search(options, LINES, output="o")
    row = table("o")[0]
    changes = [
        {"file": "trials/../../elsewhere"}, {"file": "/etc/passwd"}, {"file": 3}, {"valid": []}, {"score": "x"},
        {"trial": -1}, {"status": "good"}, {"more": 1}, {"options": []},
    ]  # fmt: skip
    for content in ("[]", "{", "1", *(json.dumps({**row, **change}) for change in changes)):
        Path("o/trials.jsonl").write_text(content + "\n")
        with pytest.raises(DSLError, match=r"^output=.*o: trials.jsonl must be the table of a search"):
            search({**options, "epochs": 1}, LINES, output="o")
        Path("o/trials.jsonl").write_bytes(before["o/trials.jsonl"])
    assert before == files("o")


def test_settings_are_described_and_there_for_the_command(capsys):
    from recbole_dsl.tuning.search import SETTINGS

    assert set(cli._TUNE_HELP) == set(SETTINGS) == set(SearchSettings.__dataclass_fields__)
    with pytest.raises(SystemExit):
        cli.main(["tune", "--help"])
    shown = capsys.readouterr().out
    assert all(f"--{name}" in shown for name in SETTINGS)
    with pytest.raises(DSLError):
        run_search("BPR", "tiny", None, SearchSettings())
