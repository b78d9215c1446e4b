"""What a model was trained on is known when it starts from a file, or meets other interactions."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from recbole.data.interaction import Interaction

from recbole_dsl import DSLError, load_data_and_model, run_recbole_dsl
from recbole_dsl.checkpoint.checkpoint_file import read_checkpoint
from recbole_dsl.checkpoint.tokens import unpack_tokens
from recbole_dsl.data.rows import FileRows
from recbole_dsl.data.trained_on import trained_on, warn_of_other_interactions
from tests.data.families import (
    CE,
    FEATURES,
    PARTS,
    dumped_again,
    warnings_in,
)
from tests.running import train


def test_a_model_starts_from_files_with_its_rows_or_not_at_all(options, data_path):
    options = {**options, "mf_embedding_size": 8, "mlp_embedding_size": 8, "mlp_hidden_size": [8], "epochs": 1}
    again, other = dumped_again(data_path, 1), dumped_again(data_path, 2)
    files = {}
    for name, path, parts in (
        ("mf", data_path, (True, False)),
        ("mlp", data_path, (False, True)),
        ("x", other, (False, True)),
    ):
        change = {"mf_train": parts[0], "mlp_train": parts[1], "data_path": path, "checkpoint_dir": name}
        files[name] = train("NeuMF", {**options, **change})[0].saved_model_file
    half = read_checkpoint(files["mf"])
    start = {"use_pretrain": True, "mf_pretrain_path": files["mf"], "mlp_pretrain_path": files["mlp"]}
    run_recbole_dsl("NeuMF", "tiny", config_dict={**options, **start, "data_path": again})
    file = max(Path("saved").glob("*.pth"), key=os.path.getmtime)
    rows = read_checkpoint(str(file))["rows"]
    assert [unpack_tokens(one) for one in rows["tokens"]] == [unpack_tokens(one) for one in half["rows"]["tokens"]]
    with pytest.raises(DSLError, match=r"mlp_pretrain_path=.*x/.*: row \d+ of user_id is of"):
        run_recbole_dsl("NeuMF", "tiny", config_dict={**options, **start, "mlp_pretrain_path": files["x"]})
    with pytest.raises(DSLError, match=r"mf_pretrain_path=.*mf/.*: knows no user_id 'u999'"):
        more = dumped_again(data_path, renamed=[("u3", "u999")])
        run_recbole_dsl("NeuMF", "tiny", config_dict={**options, **start, "data_path": more})
    # what is named and not read is no matter
    run_recbole_dsl(
        "NeuMF", "tiny", config_dict={**options, **start, "use_pretrain": False, "data_path": more, "epochs": 1}
    )


def test_a_later_stage_by_a_script_of_ones_own_is_refused_before_a_step(options, data_path):
    sizes = {"hidden_size": 8, "inner_size": 8, "n_heads": 1, "n_layers": 1, "pretrain_epochs": 1, "save_step": 1}
    options = {**options, **FEATURES, **PARTS, **CE, **sizes, "epochs": 1}
    first = train("S3Rec", {**options, "train_stage": "pretrain"})[0].saved_model_file
    later = {**options, "train_stage": "finetune", "pre_model_path": first}
    assert train("S3Rec", later)
    again = {**later, "data_path": dumped_again(data_path)}
    with pytest.raises(DSLError, match=rf"pre_model_path={first}: row \d+ of \w+ is of"):
        train("S3Rec", again)
    # the call that makes the data itself gives it the ids of the file
    run_recbole_dsl("S3Rec", "tiny", config_dict=again)


def test_other_interactions_are_told_with_what_of_them_was_trained_on(trained, options, data_path, caplog):
    by_chance = {"eval_args": {"order": "RO", "split": {"RS": [8, 1, 1]}, "group_by": None}}
    file = trained("BPR", **by_chance)
    load_data_and_model(file)
    assert not warnings_in(caplog)
    again = dumped_again(data_path)
    loaded = load_data_and_model(file, data_path=again)
    told = warnings_in(caplog)
    before = load_data_and_model(file)[3]._dataset.inter_feat
    was = set(zip(before["user_id"].tolist(), before["item_id"].tolist()))
    shares = []
    for loader in loaded[4:]:
        feat = loader._dataset.inter_feat
        pairs = list(zip(feat["user_id"].tolist(), feat["item_id"].tolist()))
        shares.append(sum(pair in was for pair in pairs) / len(pairs))
    # so few interactions are all in the sample
    assert len(told) == 1
    assert f"about {shares[0]:.0%} of the validation data and {shares[1]:.0%} of the test data" in told[0]
    run_recbole_dsl(config_dict={"resume": file, "data_path": again, "epochs": 2})
    both = read_checkpoint(file.replace(".pth", ".last"))["trained_on"]
    assert len(both["sample"]) > len(was), "what was trained on before counts too"


def test_a_sample_says_about_how_much_was_trained_on(caplog):
    class Data:
        uid_field, iid_field, dataset_name = "u", "i", "x"

        def __init__(self, users, items):
            self.inter_feat = Interaction({"u": torch.from_numpy(users), "i": torch.from_numpy(items)})
            names = np.array(["[PAD]", *map(str, range(4000))], object)
            self.field2id_token = {"u": names, "i": names}

    generator = np.random.default_rng(0)
    users, items = generator.integers(1, 4000, (2, 60_000))
    train, order = Data(users[:50_000], items[:50_000]), generator.permutation(50_000)
    of_train = trained_on(train)
    again = trained_on(Data(users[:50_000][order], items[:50_000][order]))
    assert again["digest"] == of_train["digest"] and torch.equal(again["sample"], of_train["sample"])
    file = FileRows({"trained_on": of_train}, "model_file", "x.pth")
    # a third of it was trained on
    test = Data(users[45_000:], items[45_000:])
    warn_of_other_interactions(file, Data(users[:49_999], items[:49_999]), {"test": test})
    assert 0.23 < float(caplog.messages[0].split("about ")[1].split("%")[0]) / 100 < 0.44
