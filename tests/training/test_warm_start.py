"""A night that goes on from the one before, with other users, items and features, in another order."""

import glob
import json
import logging
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from recbole.utils import init_seed

from recbole_dsl import DSLConfig, DSLError, cli, load_data_and_model, run_recbole_dsl, sparse_weights
from recbole_dsl.checkpoint.checkpoint_file import read_checkpoint
from recbole_dsl.training.configs import build_config
from recbole_dsl.training.quick_start import prepare_trial
from tests.running import train
from tests.serving.artifacts import make
from tests.tiny import write_tiny
from tests.training.test_resuming import Stopped, assert_equal, content, last, stop_after

GRAPH = {
    "inter": ["user_id", "item_id"],
    "kg": ["head_id", "relation_id", "tail_id"],
    "link": ["item_id", "entity_id"],
}
FEATURES = {
    "inter": ["user_id", "item_id", "rating"],
    "user": ["user_id", "age", "gender"],
    "item": ["item_id", "release_year", "class"],
}
RATINGS = {
    "load_col": FEATURES,
    "threshold": {"rating": 4},
    "metrics": ["AUC"],
    "valid_metric": "AUC",
    "eval_args": {"mode": "labeled"},
}
# what each model needs to be trained on "tiny"
OF_MODEL = {
    "NeuMF": {"mf_embedding_size": 8, "mlp_embedding_size": 8, "mlp_hidden_size": [8]},
    "LightGCN": {},
    "MultiVAE": {"mlp_hidden_size": [8], "latent_dimension": 4, "train_neg_sample_args": None},
    "SASRec": {"load_col": {"inter": ["user_id", "item_id", "timestamp"]}, "train_neg_sample_args": None},
    "BERT4Rec": {"load_col": {"inter": ["user_id", "item_id", "timestamp"]}, "train_neg_sample_args": None},
    "CKE": {"load_col": GRAPH},
    "FM": RATINGS,
    "DCNV2": RATINGS | {"mlp_hidden_size": [8]},
}


@pytest.fixture(scope="module")
def nights(tmp_path_factory):
    """A folder with "before" and "after": "tiny" without some users and items, and in another order."""
    folder = tmp_path_factory.mktemp("nights")
    for name, users, items in (
        ("before", ("u0", "u1", "u2"), ("i0", "i1")),
        ("after", ("u10",), ("i20", "i21", "i22")),
    ):
        write_tiny(folder / "tiny")
        (folder / "tiny").rename(folder / name)
        for file in (folder / name).iterdir():
            file.rename(file.with_name(file.name.replace("tiny", name)))
        lines = (folder / name / f"{name}.inter").read_text().splitlines()
        kept = [line for line in lines[1:] if not {*users, *items} & set(line.split("\t"))]
        kept = kept[::-1] if name == "after" else kept
        (folder / name / f"{name}.inter").write_text("\n".join([lines[0], *kept]) + "\n")
        if name == "after":
            graph = folder / name / f"{name}.kg"
            first, *triples = graph.read_text().splitlines()
            graph.write_text("\n".join([first, "e79\tr9\te78", *triples[:40:-1]]) + "\n")
            people = folder / name / f"{name}.user"
            first, *rows = people.read_text().splitlines()
            people.write_text("\n".join([first, *(row.replace("\t21\t", "\t99\t") for row in rows[::-1])]) + "\n")
    return str(folder)


SIZES = {
    "load_col": {"inter": ["user_id", "item_id"]},
    "epochs": 2,
    "train_batch_size": 256,
    "embedding_size": 8,
    "density": 0.3,
}


@pytest.fixture
def options(nights):
    return {"data_path": nights, **SIZES, "learning_rate": 0.01, "save_last": False, "show_progress": False}


@pytest.fixture(scope="module")
def bpr(nights, tmp_path_factory):
    """The file of a BPR model of "before"."""
    folder = str(tmp_path_factory.mktemp("bpr"))
    run_recbole_dsl("BPR", "before", config_dict={"data_path": nights, **SIZES, "checkpoint_dir": folder})
    (file,) = glob.glob(f"{folder}/*.pth")
    return file


def saved(folder="saved"):
    return max(glob.glob(f"{folder}/*.pth"), key=os.path.getmtime)


def started(model, options):
    """The model of a night before its first step, and its data."""
    with prepare_trial(build_config(model, "after", None, {**options, "state": "error"}), saved=False) as (
        trainer,
        data,
    ):
        return trainer.model, data.train._dataset


def by_token(model, dataset):
    """Each row of each table, by whose it is; written down model by model, as RecBole's constructors say it."""
    found = {}

    def note(name, table, field, ids=None, start=0):
        for number, token in enumerate(dataset.field2id_token[field]):
            found[name, field, str(token)] = table[start + number].numpy()

    parameters = {n: p.detach() for n, p in model.named_parameters()}
    parameters |= {n: w.dense().detach() for n, w in sparse_weights(model).items()}
    for name, table in parameters.items():
        if "token_embedding_table" in name:
            fields = "user_id", "item_id", "age", "gender", "release_year"
            order = [f for f in dataset.field2type if f in fields]
            start = 0
            for field in order:
                note(name, table, field, start=start)
                start += len(dataset.field2id_token[field])
        elif "token_seq_embedding_table" in name:
            note(name, table, "class")
        elif "entity" in name:
            note(name, table, dataset.entity_field)
        elif "relation" in name:
            note(name, table, dataset.relation_field)
        elif name.startswith("user_"):
            note(name, table, "user_id")
        elif name.startswith("item_embedding") or name.startswith("item_m"):
            note(name, table, "item_id")
        elif name == "trans_w.weight":
            note(name, table, dataset.relation_field)
        elif table.shape[0] == dataset.item_num:
            note(name, table, "item_id")
        elif table.dim() == 2 and table.shape[1] == dataset.item_num:
            note(name, table.T, "item_id")
        else:
            found[name, None, None] = table.numpy()
    return found


@pytest.mark.parametrize("model", OF_MODEL)
def test_whoever_was_there_keeps_their_weights(model, options):
    options |= OF_MODEL[model]
    run_recbole_dsl(model, "before", config_dict=options)
    file = saved()
    _, old, dataset, *_ = load_data_and_model(file)
    before = by_token(old, dataset)
    nnz = sum(weight.nnz for weight in sparse_weights(old).values())
    # as many weights that nobody has to give one up
    new, data = started(model, {**options, "warm_start": file, "weights": int(nnz * 1.6)})
    after = by_token(new, data)
    assert {key[0] for key in after} == {key[0] for key in before}
    kept = after.keys() & before.keys()
    assert {key[1] for key in kept if key[2] not in (None, "[PAD]")} >= {"item_id"}
    for key in kept:
        if key[2] != "[PAD]":
            assert np.allclose(after[key], before[key]), key
    came = {key: value for key, value in after.items() if key not in before}
    assert came and all(np.isfinite(value).all() for value in came.values())
    assert all(value.any() for key, value in came.items() if key[1] == "item_id")


def test_cross_layers_stay_where_they_were(options):
    options |= OF_MODEL["DCNV2"]
    run_recbole_dsl("DCNV2", "before", config_dict=options)
    file = saved()
    old = sparse_weights(load_data_and_model(file)[1])
    new = sparse_weights(started("DCNV2", {**options, "warm_start": file})[0])
    for name in (name for name in old if "cross" in name):
        # the tables have other numbers of rows, and so other shares of all weights
        fewer, more = sorted((old[name], new[name]), key=lambda weight: weight.nnz)
        assert torch.isin(fewer.positions(), more.positions()).all() and fewer.nnz > 0.7 * more.nnz


@pytest.mark.parametrize("rows", ["recode", "fold_in", "random"])
@pytest.mark.parametrize("budget", [{"density": 0.3}, {"weights": 86}, {"density": 1.0}])
def test_the_budget_is_exact_from_the_first_step(bpr, options, rows, budget):
    options |= budget
    if budget == {"density": 1.0}:
        run_recbole_dsl("BPR", "before", config_dict=options)
    file = saved() if budget == {"density": 1.0} else bpr
    model, _ = started("BPR", {**options, "warm_start": file, "warm_start_rows": rows})
    weights = sparse_weights(model).values()
    numel = sum(weight.numel for weight in weights)
    wanted = budget.get("weights", round(options["density"] * numel))
    assert sum(weight.nnz for weight in weights) == wanted
    for weight in weights:
        assert weight.row_offsets[-1] == weight.nnz == len(weight.values)
        positions = weight.positions()
        assert (positions.diff() > 0).all()


def test_a_night_is_trained_logged_and_reported(bpr, options):
    result = run_recbole_dsl("BPR", "after", config_dict={**options, "warm_start": bpr})
    assert result["test_result"]
    log = "".join(Path(file).read_text() for file in glob.glob("log/BPR/*.log"))
    assert "user_id: 36 kept, 3 new, 1 gone" in log and "item_id: 45 kept, 2 new, 3 gone" in log
    assert "coded anew: user_embedding.weight, item_embedding.weight" in log and "moments are dropped" in log
    checkpoint = read_checkpoint(saved())
    assert not checkpoint["topology"]["updates"]
    (night,) = checkpoint["nights"]
    assert night["rows"] == {"user_id": [36, 3, 1], "item_id": [45, 2, 3]} and night["run"]
    nnz = {name: len(checkpoint["state_dict"][f"{name}.values"]) for name in night["weights"]}
    assert {name: sum(counts) for name, counts in night["weights"].items()} == nnz
    # and it is what serves, and what the next night starts from
    _, _, dataset, *_ = load_data_and_model(saved())
    for field, were_not_there in (("user_id", {"u0", "u1", "u2"}), ("item_id", {"i0", "i1"})):
        bits = np.unpackbits(night["new"][field].numpy(), count=dataset.num(field) - 1)
        assert set(dataset.field2id_token[field][1:][bits == 1]) == were_not_there
    run_recbole_dsl("BPR", "before", config_dict={**options, "warm_start": saved()})
    first, second = read_checkpoint(saved())["nights"]
    assert first == {**night, "new": {}} and second["new"]


def test_a_script_of_ones_own_starts_from_it_too(bpr, options):
    trainer, _ = train("BPR", {**options, "warm_start": bpr, "learning_rate": 0.0}, "after")
    assert trainer.nights[0]["rows"]["user_id"] == [36, 3, 1] and trainer.topology.config.topology == "fixed"
    model, _ = started("BPR", {**options, "warm_start": bpr})
    for name, weight in sparse_weights(model).items():
        assert torch.equal(weight.dense(), sparse_weights(trainer.model)[name].dense())


def test_a_topology_that_is_asked_for_is_dynamic(bpr, options):
    options |= {"warm_start": bpr, "topology": "dynamic", "update_interval": 2}
    run_recbole_dsl("BPR", "after", config_dict=options)
    assert read_checkpoint(saved())["topology"]["updates"]


def test_a_night_that_was_killed_goes_on_without_the_old_file(bpr, options, monkeypatch):
    shutil.copy(bpr, "old.pth")
    options |= {"warm_start": "old.pth", "save_last": True, "epochs": 4, "stopping_step": 9}
    run_recbole_dsl("BPR", "after", config_dict={**options, "checkpoint_dir": "whole"})
    with monkeypatch.context() as patched, pytest.raises(Stopped):
        stop_after(patched, 2)
        run_recbole_dsl("BPR", "after", config_dict={**options, "checkpoint_dir": "parts"})
    os.remove("old.pth")
    run_recbole_dsl("BPR", "after", config_dict={**options, "checkpoint_dir": "parts", "resume": True})
    one, other = content(last("whole")), content(last("parts"))
    for part in ("state_dict", "optimizers", "topology", "best_valid_result", "nights", "trained_on"):
        assert_equal(one[part], other[part], part)


def test_what_was_trained_on_already_is_not_trained_on_again(bpr, options, caplog):
    result = run_recbole_dsl("BPR", "before", config_dict={**options, "warm_start": bpr, "checkpoint_dir": "none"})
    assert "none is new: nothing is trained or written" in caplog.text
    assert result["test_result"] is None and result["best_valid_result"]
    assert not glob.glob("none/*") and not glob.glob("log/BPR/*")


def test_a_command_that_trains_nothing_says_so(bpr, nights, monkeypatch, capsys):
    # the console is the run's own where no program has set up a log
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    common = [f"--data_path={nights}", "--load_col={'inter':['user_id','item_id']}", "--embedding_size=8"]
    cli.main(["train", "--model=BPR", "--dataset=before", f"--warm_start={bpr}", *common])
    told = capsys.readouterr()
    assert told.err.startswith(f"warning: warm_start={bpr}: was trained on") and told.err.count("\n") == 1
    assert "none is new" in told.err and json.loads(told.out)["model_file"] is None
    assert not os.path.exists("saved") and not os.path.exists("log")


def of_others(folder, name="others"):
    """Data of other users and items."""
    (Path(folder) / name).mkdir(exist_ok=True)
    lines = "".join(f"x{user}\ty{item}\n" for user in range(9) for item in range(15) if (user + item) % 3)
    (Path(folder) / name / f"{name}.inter").write_text(f"user_id:token\titem_id:token\n{lines}")
    return name


@pytest.mark.parametrize(
    "model, changes, wanted",
    [
        ("LightGCN", {}, "holds BPR, must hold LightGCN"),
        ("BPR", {"embedding_size": 9}, r"embedding.weight is \(.*, 8\), must be \(.*, 9\)"),
        ("BPR", {"dataset": "others"}, "has none of the user_id and item_id of dataset=others"),
        ("BPR", {"warm_start": "none.pth"}, "must be an existing file"),
        ("BPR", {"warm_start": "damaged.pth"}, "must be a whole checkpoint of recbole_dsl"),
        ("BPR", {"warm_start": "other.pth"}, "must be a checkpoint of recbole_dsl"),
        ("BPR", {"warm_start": "earlier.pth"}, "does not record which user or item each row belongs to"),
        ("BPR", {"warm_start": ""}, "must be the path of a file"),
        ("BPR", {"warm_start_rows": "new"}, "recode, fold_in, random"),
        ("BPR", {"warm_start": "model.rdsl"}, "must be a whole checkpoint of recbole_dsl, but it is an artifact"),
        ("BPR", {"warm_start": "folder.pth"}, "must be an existing file"),
        ("BPR", {"weights": 40}, "weights=40: must be at least 86, one for each row of user_embedding.weight"),
        ("BPR", {"weights": 85}, "weights=85: must be at least 86, one for each row of item_embedding.weight"),
        ("BPR", {"weights": 0}, "must be an integer >= 1"),
        ("BPR", {"weights": 10**6}, "weights=1000000: must be at most"),
        ("NeuMF", {"warm_start": "NeuMF", "warm_start_rows": "recode"}, "must be fold_in or random with NeuMF"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(model, changes, wanted, bpr, options, nights):
    of_others(nights)
    make().write("model.rdsl")
    os.mkdir("folder.pth")
    Path("damaged.pth").write_bytes(Path(bpr).read_bytes()[:-300])
    torch.save({"state_dict": {}}, "other.pth")
    checkpoint = torch.load(bpr, weights_only=True)
    torch.save({**checkpoint, "rows": {}}, "earlier.pth")
    given = {**options, "warm_start": bpr, **changes}
    if given["warm_start"] == "NeuMF":
        run_recbole_dsl("NeuMF", "before", config_dict={**options, "checkpoint_dir": "neumf"})
        given["warm_start"] = saved("neumf")
        shutil.rmtree("log")
    with pytest.raises(DSLError, match=wanted) as error:
        run_recbole_dsl(model, given.pop("dataset", "after"), config_dict=given)
    assert "\n" not in str(error.value)
    assert not os.path.exists("saved") and not glob.glob("log/*/*")


def test_random_numbers_of_the_run_are_not_touched(bpr, options):
    """Looking for the rows of tokens makes the model again."""
    draws = []
    for _ in range(2):
        init_seed(7, True)
        started("BPR", {**options, "warm_start": bpr})
        draws.append((torch.rand(1).item(), np.random.random()))
    assert draws[0] == draws[1]


def test_its_options_are_plain_data():
    assert DSLConfig(warm_start="saved/BPR.pth", weights=10).to_dict()["weights"] == 10
