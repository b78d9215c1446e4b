"""Who was forgotten is nowhere in the file, and nobody else notices."""

import glob
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.model_cases import CASES
from recbole_dsl import DSLError, cli, load_data_and_model, run_recbole_dsl, sparse_weights
from recbole_dsl.checkpoint.checkpoint_file import read_checkpoint
from recbole_dsl.data.trained_on import hashes_of_users
from recbole_dsl.forgetting import forget
from recbole_dsl.forgetting.axes import UserAxes, without
from recbole_dsl.forgetting.traces import traces
from recbole_dsl.serving import Recommender, export
from recbole_dsl.serving.artifact import write_artifact
from recbole_dsl.serving.csr import CSR
from recbole_dsl.serving.tokens import Tokens
from recbole_dsl.serving.user_histories import UserHistories
from tests.network_scoring.exported import DENSITY, made
from tests.serving.artifacts import make
from tests.tiny import write_tiny
from tests.training.test_models import options_of

GONE = ["person-number-3", "person-number-12"]


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """A folder with "tiny", whose users have names that are in no file by chance."""
    folder = tmp_path_factory.mktemp("people")
    write_tiny(folder / "tiny")
    for name in ("inter", "user"):
        file = folder / "tiny" / f"tiny.{name}"
        file.write_text(file.read_text().replace("\nu", "\nperson-number-"))
    return folder


@pytest.fixture(scope="module")
def trained(people, tmp_path_factory):
    """The folder with the two files of a run of BPR, and the options of that."""
    folder = str(tmp_path_factory.mktemp("saved"))
    options = {
        "data_path": str(people),
        "load_col": {"inter": ["user_id", "item_id"]},
        "epochs": 3,
        "stopping_step": 99,
        "train_batch_size": 128,
        "embedding_size": 8,
        "density": 0.3,
        "update_interval": 3,
        "show_progress": False,
        "checkpoint_dir": folder,
    }
    run_recbole_dsl("BPR", "tiny", config_dict=options)
    return folder, options


@pytest.fixture
def files(trained):
    """Copies of the two files, the best epoch's and the last state."""
    shutil.copytree(trained[0], "saved")
    return glob.glob("saved/*.pth")[0], glob.glob("saved/*.last")[0]


def rows_by_token(checkpoint, name="user_embedding.weight"):
    """token -> its row of a sparse table."""
    (lengths, text) = (checkpoint["rows"]["tokens"][0][part] for part in ("lengths", "text"))
    tokens = [bytes(part.tolist()).decode() for part in text.split(lengths.tolist())]
    state = checkpoint["state_dict"]
    values, columns, offsets = (state[f"{name}.{part}"] for part in ("values", "columns", "row_offsets"))
    ends = offsets.tolist()
    return {
        token: dict(zip(columns[a:b].tolist(), values[a:b].tolist()))
        for token, a, b in zip(tokens, ends[1:], ends[2:])
    }


def test_a_checkpoint_has_nothing_of_them(files):
    for file in files:
        before = torch.load(file, weights_only=True)
        assert all(name.encode() in Path(file).read_bytes() for name in GONE)
        done = forget(file, [*GONE, "nobody"])
        assert str(done) == f"{file}: forgot 2 of 3 users, 38 are left; not in it: nobody"
        content = Path(file).read_bytes()
        assert not any(
            name.encode() + end in content for name in GONE for end in (b"p", b"")[:1] if name != GONE[0]
        )
        after = read_checkpoint(file)
        rows = rows_by_token(before)
        assert rows_by_token(after) == {token: row for token, row in rows.items() if token not in GONE}
        for part in ("values", "columns", "row_offsets"):
            name = f"item_embedding.weight.{part}"
            assert torch.equal(before["state_dict"][name], after["state_dict"][name])
        assert after["shapes"]["user_embedding.weight"] == [39, 8]
        assert not any(one["state"] for one in after["optimizers"]) and not after["topology"]["window"]
        items = [f"i{item}" for item in range(50)]
        theirs = np.concatenate(list(hashes_of_users(GONE, items)))
        assert np.isin(before["trained_on"]["sample"].numpy(), theirs).any()
        assert not np.isin(after["trained_on"]["sample"].numpy(), theirs).any()
        assert after["trained_on"]["digest"] != before["trained_on"]["digest"]
        # of a record of a byte for each row of eight columns
        kept = [0, *(number for number, token in enumerate(rows, 1) if token not in GONE)]
        explored = [one["topology"]["explored"]["user_embedding.weight"] for one in (before, after)]
        assert torch.equal(explored[0][kept], explored[1])
        again = Path(file).read_bytes()
        assert str(forget(file, GONE)).startswith(f"{file}: forgot 0 of 2 users, 38 are left; not in it: ")
        assert Path(file).read_bytes() == again


def without_them(people, folder):
    """A copy of the data without those who are to be forgotten."""
    shutil.copytree(people / "tiny", f"{folder}/tiny")
    for name in ("inter", "user"):
        file = Path(folder) / "tiny" / f"tiny.{name}"
        lines = file.read_text().splitlines()
        file.write_text("\n".join(line for line in lines if line.split("\t")[0] not in GONE) + "\n")
    return folder


def test_a_run_goes_on_and_a_night_begins_after_forgetting(files, trained, people):
    for file in files:
        forget(file, GONE)
    options = {**trained[1], "checkpoint_dir": "saved", "epochs": 5}
    with pytest.raises(DSLError, match="knows no user_id 'person-number-3', which dataset=tiny has"):
        run_recbole_dsl(config_dict={"resume": files[1], "epochs": 5})
    options["data_path"] = without_them(people, "data")
    run_recbole_dsl(config_dict={"resume": files[1], "epochs": 5, "data_path": "data"})
    checkpoint = read_checkpoint(files[1])
    assert checkpoint["epoch"] == 4 and all(one["state"] for one in checkpoint["optimizers"])
    _, model, dataset, *_ = load_data_and_model(files[0])
    assert dataset.user_num == 39 and sparse_weights(model)["user_embedding.weight"].n_rows == 39
    night = run_recbole_dsl(
        "BPR", "tiny", config_dict={**options, "warm_start": files[0], "checkpoint_dir": "next"}
    )
    assert night["test_result"]
    (next_file,) = glob.glob("next/*.pth")
    assert read_checkpoint(next_file)["nights"][0]["rows"]["user_id"] == [38, 0, 0]


@pytest.mark.parametrize("values", ["fp32", "fp16", "int8", "int4"])
@pytest.mark.parametrize("level", ["all", "trained", "none"])
def test_what_an_artifact_says_of_others_stays_to_the_bit(values, level):
    path = make(n_users=40, values=values, level=level).write()
    before = Recommender.load(path)
    gone = ["u7", "u0", "u39"]
    assert str(forget(path, gone)) == f"{path}: forgot 3 of 3 users, 37 are left"
    after = Recommender.load(path)
    others = [name for name in before.users.all if name not in gone]
    assert after.users.all.tolist() == others and after.header["n_users"] == 37
    for some, same in zip(before.recommend(others), after.recommend(others)):
        assert np.array_equal(some, same)
    for some, same in zip(before.recommend_for([["i1", "i4"]]), after.recommend_for([["i1", "i4"]])):
        assert np.array_equal(some, same)
    with pytest.raises(DSLError, match="users=u7: must be users that the model was trained on"):
        after.recommend(["u7"])
    assert sum(len(array) for name, array in after.user_histories.arrays().items() if name == "seen.trained") in (
        0,
        37,
    )


@pytest.mark.parametrize("propagate", [False, True])
def test_a_graph_model_is_served_as_before(propagate, people):
    options = {"data_path": str(people), "load_col": {"inter": ["user_id", "item_id"]}, "epochs": 1}
    options |= {"embedding_size": 8, "density": 0.3, "save_last": False, "show_progress": False}
    run_recbole_dsl("LightGCN", "tiny", config_dict=options)
    export(glob.glob("saved/*.pth")[0], "model.rdsl", propagate=propagate)
    before = Recommender.load("model.rdsl")
    forget("model.rdsl", GONE)
    after = Recommender.load("model.rdsl")
    others = after.users.all.tolist()
    assert len(others) == 38
    for some, same in zip(before.recommend(others), after.recommend(others)):
        assert np.array_equal(some, same)
    assert b"person-number-12" not in Path("model.rdsl").read_bytes()


DENSE_USERS = {"exclude": ["user_mf_embedding", "user_mlp_embedding"], "mf_embedding_size": 32}


@pytest.mark.parametrize(
    "case, changes",
    [("DMF", {}), ("FM", {}), ("RippleNet", {}), ("SASRec", {}), ("CDAE", {}), ("NeuMF", DENSE_USERS)],
)
def test_a_network_has_nothing_of_them(case, changes, people, monkeypatch):
    family = next(family for family, cases in CASES.items() if case in cases)
    exported = made({**options_of(family, case, str(people)), **DENSITY, **changes})
    header, arrays = exported.parts(values="int8")
    data = exported.dataset
    histories = CSR.of_lists([[item % 50] for item in range(40)])
    arrays |= Tokens.of(data.field2id_token["user_id"][1:], "users").arrays("users")
    arrays |= Tokens.of(data.field2id_token["item_id"][1:51], "items").arrays("items")
    arrays |= UserHistories.of(histories, histories, data.item_num - 1, "all").arrays()
    write_artifact("model.rdsl", exported.header(header), arrays)
    before = Recommender.load("model.rdsl")
    assert str(forget("model.rdsl", GONE)) == "model.rdsl: forgot 2 of 2 users, 38 are left"
    after = Recommender.load("model.rdsl")
    assert b"person-number-12" not in Path("model.rdsl").read_bytes()
    others = after.users.all.tolist()
    for some, same in zip(before.recommend(others), after.recommend(others)):
        assert np.array_equal(some, same)


def test_the_command_says_what_it_found_and_of_the_other_file(files, capsys):
    make().write()
    Path("users.txt").write_text("person-number-3\nu4\n")
    cli.main(["forget", files[0], "model.rdsl", "--forget=users.txt"])
    assert capsys.readouterr().err.splitlines() == [
        f"{files[0]}: forgot 1 of 2 users, 39 are left; not in it: u4",
        "model.rdsl: forgot 1 of 2 users, 11 are left; not in it: person-number-3",
        f"{files[1]}: is of the same run, and still has some of them",
    ]
    before = Path("model.rdsl").read_bytes()
    Path("users.txt").write_text("u5\n")
    cli.main(["forget", "model.rdsl", "--users=users.txt", "--output=other.rdsl"])
    assert Path("model.rdsl").read_bytes() == before
    assert len(Recommender.load("other.rdsl").users) == 10


@pytest.mark.parametrize(
    "arguments, line",
    [
        (["model.rdsl"], "--users: must be given"),
        (["model.rdsl", "--users=none.txt"], "users=none.txt: must be a file that can be read"),
        (["model.rdsl", "--users=empty.txt"], "users=empty.txt: must have a token on each line"),
        (["none.pth", "--users=users.txt"], "file=none.pth: must be an existing file"),
        (["users.txt", "--users=users.txt"], "file=users.txt: must be a checkpoint or an artifact"),
        (["damaged.rdsl", "--users=users.txt"], "artifact=damaged.rdsl: must be a whole artifact"),
        (["damaged.pth", "--users=users.txt"], "file=damaged.pth: must be a whole checkpoint"),
        (["model.rdsl", "--users=all.txt"], "file=model.rdsl: has no other users: must leave one"),
        (["model.rdsl", "--users=users.txt", "--output=users.txt"], "output=users.txt: must be a new file"),
        (["model.rdsl", "damaged.rdsl", "--users=users.txt", "--output=o"], "output=o: must be left out"),
        (["earlier.pth", "--users=users.txt"], "file=earlier.pth: does not say whose rows it holds"),
        (["said.pth", "--users=people.txt"], "file=said.pth: would still hold person-number-12, in an option"),
        (["unclear.pth", "--users=people.txt"], "file=unclear.pth: extra has 42 entries, which may be of the 40"),
        (["model.rdsl", "--users=users.txt", "--more=1"], "--more=1: must be one of the options"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused_and_changes_no_file(arguments, line, files, capsys):
    make().write()
    content = torch.load(files[0], weights_only=True)
    Path("damaged.rdsl").write_bytes(Path("model.rdsl").read_bytes()[:-9])
    Path("damaged.pth").write_bytes(Path(files[0]).read_bytes()[:-9])
    torch.save({**content, "rows": {}}, "earlier.pth")
    torch.save({**content, "config": {**content["config"], "note": "of person-number-12, say"}}, "said.pth")
    torch.save({**content, "state_dict": {**content["state_dict"], "extra": torch.zeros(42)}}, "unclear.pth")
    texts = {"empty": "", "users": "u1\n", "people": "\n".join(GONE), "all": "\n".join(f"u{i}" for i in range(12))}
    for name, text in texts.items():
        Path(f"{name}.txt").write_text(text)
    before = {file: file.read_bytes() for file in Path().rglob("*") if file.is_file()}
    with pytest.raises(SystemExit):
        cli.main(["forget", *arguments])
    told = capsys.readouterr()
    assert told.err.startswith(f"recbole-dsl forget: {line}") and told.err.count("\n") == 1 and not told.out
    assert {file: file.read_bytes() for file in Path().rglob("*") if file.is_file()} == before


@given(st.data())
def test_an_axis_of_a_sparse_weight_loses_the_same_entries_as_a_dense_one(data):
    shape = data.draw(st.tuples(*[st.integers(1, 5)] * data.draw(st.integers(2, 3))))
    random = np.random.default_rng(data.draw(st.integers(0, 9)))
    dense = (random.random(shape) * (random.random(shape) < 0.5)).astype(np.float32)
    axis = data.draw(st.integers(0, len(shape) - 1))
    keep = random.random(shape[axis]) < 0.6
    keep[0] = True
    left = without(CSR.of_nonzero(dense.reshape(shape[0], -1)), shape, {axis: keep})
    wanted = dense.compress(keep, axis)
    assert np.array_equal(left.dense(), wanted.reshape(len(wanted), -1))


@given(st.lists(st.text("ab", min_size=8, max_size=10), unique=True, min_size=1, max_size=6), st.text("ab"))
def test_a_token_is_found_where_the_bytes_have_it(tokens, text):
    kept = tokens[1:]
    content = ("".join(kept) + "\0" + text).encode()
    more = sum(content[i:].startswith(tokens[0].encode()) for i in range(len(content)))
    allowed = sum("".join(kept)[i:].startswith(tokens[0]) for i in range(len(content)))
    assert traces(content, tokens[:1], kept) == (tokens[:1] if more > allowed else [])


def test_axes_are_told_by_their_size_and_else_refused():
    def refuse(words):
        raise DSLError(words)

    keep = np.ones(101, bool)
    keep[5] = False
    counts = {"user_id": 101, "item_id": 201, "age": 9}
    axes = UserAxes(keep, counts, "user_id", frozenset({64}), refuse)
    assert axes.of_shape((201, 64), "item_embedding.weight") == {}
    assert list(axes.of_shape((64, 101), "item_linear.weight")) == [1]
    table = axes.of_shape((311, 8), "token_embedding_table.embedding.weight")[0]
    assert np.flatnonzero(~table).tolist() == [5]
    turned = UserAxes(keep, dict(reversed(counts.items())), "user_id", frozenset(), refuse)
    table = turned.of_shape((311, 8), "token_embedding_table.embedding.weight")[0]
    assert np.flatnonzero(~table).tolist() == [9 + 201 + 5]
    for shape in ((102, 8), (110, 8), (99,)):
        with pytest.raises(DSLError, match="which may be of the 100 users"):
            axes.of_shape(shape, "mine")
    same = UserAxes(keep, {"user_id": 101, "item_id": 101}, "user_id", frozenset(), refuse)
    assert list(same.of_shape((101, 8), "user_embedding.weight")) == [0]
    assert same.of_shape((101, 8), "item_embedding.weight") == {}
    with pytest.raises(DSLError, match="which may be of the 100 users or of other things"):
        same.of_shape((101, 8), "mine")
