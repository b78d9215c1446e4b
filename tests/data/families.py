"""Options of a model of each family, and the dataset "tiny" dumped again, in another order."""

import os
import random
import tempfile
from pathlib import Path

# by time, so that the parts are the same whatever the order of the lines
PARTS = {"eval_args": {"order": "TO", "split": {"LS": "valid_and_test"}, "group_by": "user"}}
COLUMNS = {"load_col": {"inter": ["user_id", "item_id", "timestamp"]}}
RANKING = {"metrics": ["NDCG"], "valid_metric": "NDCG@10"}
FEATURES = {
    **RANKING,
    "load_col": {**COLUMNS["load_col"], "user": "*", "item": "*"},
    "train_neg_sample_args": {"distribution": "uniform", "sample_num": 1, "dynamic": False},
}
GRAPH = {"kg": ["head_id", "relation_id", "tail_id"], "link": ["item_id", "entity_id"]}
CE = {"train_neg_sample_args": None}
FAMILIES = {
    "BPR": COLUMNS,
    "LightGCN": COLUMNS,
    "MultiVAE": {**COLUMNS, **CE, "mlp_hidden_size": [8], "latent_dimension": 4},
    "FM": FEATURES,
    "SASRec": {**COLUMNS, **CE, "hidden_size": 8, "inner_size": 8, "n_heads": 1, "n_layers": 1},
    "CKE": {"load_col": {**COLUMNS["load_col"], **GRAPH}, "kg_embedding_size": 8},
}


def of_family(options, model, **changes):
    usual = {"embedding_size": 8, "density": 0.3, "epochs": 1, "train_batch_size": 512, "show_progress": False}
    return {**options, **usual, **PARTS, **FAMILIES[model], **changes}


def warnings_in(caplog):
    return [r.getMessage() for r in caplog.records if r.levelname == "WARNING" and "=" in r.getMessage()]


def dumped_again(data_path, seed=0, without=(), more=(), renamed=()):
    """The data in another folder: its lines in another order, some gone, some new, some tokens renamed."""
    folder = Path(tempfile.mkdtemp(dir=os.curdir))
    (folder / "tiny").mkdir(parents=True)
    shuffle = random.Random(seed).shuffle
    for file in Path(data_path, "tiny").iterdir():
        head, *lines = file.read_text().splitlines()
        rows = [line.split("\t") for line in lines if not set(line.split("\t")) & set(without)]
        names = dict(renamed)
        lines = ["\t".join(names.get(cell, cell) for cell in row) for row in rows]
        lines += [line for suffix, line in more if file.suffix == f".{suffix}"]
        shuffle(lines)
        (folder / "tiny" / file.name).write_text("\n".join([head, *lines]) + "\n")
    return str(folder)
