"""The command itself, in a subprocess, in an empty directory outside the repository."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import recbole
import yaml

import recbole_dsl
from recbole_dsl import cli
from recbole_dsl.options.checks import known_options
from recbole_dsl.options.names import check_words, of_any_model
from recbole_dsl.results import print_result
from recbole_dsl.training.configs import build_config

ROOT = Path(__file__).parent.parent
COMMAND = ROOT / "run_recbole_dsl.py"
HEAVY = {"torch", "recbole", "ray", "numpy", "pandas", "scipy"}


def run(*arguments):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, str(COMMAND), *arguments], capture_output=True, text=True, env=environment, timeout=600
    )


# MultiVAE makes a batch of users, and so few steps
@pytest.mark.parametrize("model, interval", [("LightGCN", 20), ("BPR", 20), ("MultiVAE", 1)])
def test_trains_on_bundled_data(model, interval):
    done = run(
        f"--model={model}", "--dataset=ml-100k", "--density=0.1", "--epochs=2", f"--update_interval={interval}",
        "--train_batch_size=1024", "--show_progress=False",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    (file,) = Path("log", model).glob("*.log")
    lines = [
        "density = 0.1",
        "The number of users",
        "trainable weights",
        "topology update",
        "epoch 1 training",
        "exploration rate",
        "forward FLOPs",
        "test result",
    ]
    log = file.read_text()
    places = [log.find(line) for line in lines]
    assert -1 not in places and places == sorted(places)
    shown = done.stderr.splitlines()
    first = "data model sparse dense file log epoch epoch".split()
    assert [line.split()[0] for line in shown if line[:1].strip()][:8] == first
    assert re.search("^[0-9]+ topology updates?, ", done.stderr, re.MULTILINE) and "forward FLOPs" in done.stderr
    assert [line.split()[0] for line in shown if line[:1].strip()][-3:] == ["test", "look", "next"]
    # what is to be copied is in one piece
    assert all(
        len(line) <= 80 for line in shown if line.split()[:1] not in (["file"], ["log"], ["look"], ["next"])
    )
    # and for a program
    result = json.loads(done.stdout)
    assert list(result["test_result"]) == ["recall@10", "mrr@10", "ndcg@10", "hit@10", "precision@10"]
    assert os.path.isfile(result["model_file"]) and result["cost"]["weights"]["dense"] > 100_000
    assert sorted(os.listdir()) == ["log", "log_tensorboard", "saved"]


def test_verbose_shows_what_the_log_has_and_report_writes_the_page():
    done = run("--epochs=1", "--show_progress=False", "--verbose", "--report")
    assert done.returncode == 0, done.stderr[-3000:]
    (file,) = Path("log", "BPR").glob("*.log")
    # the console has colours, and less of a date
    shown = re.sub(r"\x1b\[[0-9;]*m", "", done.stderr)
    for line in ("density = 0.1", "The number of users", "epoch 0 training", "test result"):
        assert line in shown and line in file.read_text()
    (page,) = Path("saved").glob("*.html")
    assert f"report: {page}" in shown and "Who pays" in page.read_text()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--density=0"], "density=0: must be a number in (0, 1]"),
        (["--density", "0.5"], "--density: write --density=VALUE"),
        (
            ["--denisty=0.5"],
            "unknown option denisty: did you mean density? (if it is one of your own code, name it in "
            "own_options)",
        ),
        (
            ["--learner=sparse_adam", "--clip_grad_norm={'max_norm': 1.0}"],
            "clip_grad_norm={'max_norm': 1.0}: must be None with learner=sparse_adam, as PyTorch has no norm of "
            "sparse gradients",
        ),
        (["--config_files=nowhere.yaml"], "config_files=nowhere.yaml: must be an existing YAML file"),
        (["--model=Pop"], "model=Pop: must be a model with weights trained by gradients, which it does not have"),
    ],
)
def test_bad_input_ends_in_one_line_and_exit_code_2(arguments, message):
    done = run(*arguments)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"run_recbole_dsl: {message}\n")
    assert os.listdir() == []


@pytest.mark.parametrize(
    "words",
    [["train", "--denisty=0.5"], ["train", "--learning_rat=0.5"], ["train", "--zzzzz=1"], ["tune", "--trails=3"]],
    ids=lambda words: words[1],
)
def test_a_mistyped_option_is_named_before_anything_heavy_is_imported(words):
    done = python("-X", "importtime", "-m", "recbole_dsl", *words)
    assert done.returncode == 2 and "unknown option " in done.stderr.splitlines()[-1]
    assert not HEAVY & loaded(done.stderr)


def test_names_are_those_that_recbole_reads():
    folder = Path(recbole.__file__).parent / "properties"
    files = [file for file in folder.rglob("*.yaml") if not file.name.endswith("url.yaml")]
    in_files = {name for file in files for name in yaml.safe_load(file.read_text()) or ()}
    config = build_config("BPR", "ml-100k")
    assert of_any_model() == in_files | {name for names in config.parameters.values() for name in names}
    check_words(dict.fromkeys(known_options(config), ""), "BPR", [])


def test_only_a_pipe_or_a_file_gets_the_result(monkeypatch, capsys):
    result = {"score": float("nan"), "best": [1.5, float("-inf")], "of": {"a": "ü"}}
    print_result(result, None)
    print_result(result, "text")
    assert capsys.readouterr().out == '{"score": null, "best": [1.5, null], "of": {"a": "ü"}}\n'
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    print_result(result, None)
    assert capsys.readouterr().out == ""
    print_result(result, "json")
    assert capsys.readouterr().out.count("\n") == 1


def test_what_only_the_model_shows_to_be_wrong_leaves_nothing_behind():
    done = run("--targets=table")
    assert done.returncode == 2
    message = "targets=table: must match one of user_embedding.weight, item_embedding.weight"
    assert done.stderr.splitlines()[-1] == f"run_recbole_dsl: {message}"
    assert "Traceback" not in done.stderr and os.listdir() == []


def python(*arguments):
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=ROOT, timeout=60)


@pytest.mark.parametrize("command", [["run_recbole_dsl.py"], ["-m", "recbole_dsl", "train"]])
def test_help_lists_the_options_and_loads_nothing_heavy(command):
    done = python("-X", "importtime", *command, "--help")
    assert done.returncode == 0
    assert "--density=0.1" in done.stdout and "--config_files" in done.stdout
    assert not HEAVY & loaded(done.stderr)


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["--version"]], ids=" ".join)
def test_a_reader_who_has_enough_gets_no_traceback(arguments):
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "wb") as closed:
        done = subprocess.run(
            [sys.executable, "-m", "recbole_dsl", *arguments], stdout=closed, stderr=subprocess.PIPE, cwd=ROOT
        )
    # argparse itself keeps silent about what it could not write
    assert done.stderr == b"" and done.returncode in (0, 141)


def test_the_package_loads_nothing_heavy_until_a_name_is_used():
    names = "import recbole_dsl, sys; dir(recbole_dsl); print(*sys.modules)"
    assert not HEAVY & set(python("-c", names).stdout.split())
    done = python("-c", "import recbole_dsl, sys; recbole_dsl.DSLConfig; print(*sys.modules)")
    assert "torch" in done.stdout.split() or "recbole_dsl.config" in done.stdout.split()


def test_every_public_name_is_there_and_is_no_module():
    for name in recbole_dsl.__all__:
        assert callable(getattr(recbole_dsl, name)) and name in dir(recbole_dsl)
    assert set(recbole_dsl.__all__) == set(recbole_dsl._HOMES)
    with pytest.raises(AttributeError, match="zzz"):
        recbole_dsl.zzz  # noqa: B018


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_without_a_command_it_says_what_there_is_and_what_to_type(words, capsys):
    cli.main(words)
    shown = capsys.readouterr().out
    assert all(f"  {name} " in shown for name in cli.COMMANDS) and "recbole-dsl train --model=" in shown


@pytest.mark.parametrize(
    "word, hint",
    [
        ("trian", "did you mean train?"),
        ("tunes", "did you mean tune?"),
        ("fly", f"the commands are {', '.join(cli.COMMANDS)}"),
        ("--model=BPR", "write recbole-dsl train --model=BPR"),
    ],
)
def test_an_unknown_command_is_refused_in_one_line(word, hint, capsys):
    with pytest.raises(SystemExit) as exit:
        cli.main([word])
    assert exit.value.code == 2 and capsys.readouterr().err == f"recbole-dsl: unknown command {word}: {hint}\n"


def test_the_two_commands_are_one():
    for command in (["run_recbole_dsl.py"], ["-m", "recbole_dsl", "train"]):
        done = python(*command, "--density=0")
        assert done.returncode == 2 and done.stderr.endswith(": density=0: must be a number in (0, 1]\n")


def loaded(importtime):
    """The modules in the report of ``python -X importtime``."""
    return {line.rsplit("|")[-1].strip() for line in importtime.splitlines() if line.startswith("import time:")}
