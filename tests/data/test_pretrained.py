"""A model whose constructor reads files starts from sparse and dense ones, and no file runs code."""

import os

import pytest
import torch
from recbole.trainer import Trainer

from recbole_dsl import DSLError, load_data_and_model, run_recbole_dsl
from recbole_dsl.checkpoint.checkpoint_file import read_checkpoint
from tests.running import prepare, train

HALF = {"mf_embedding_size": 8, "mlp_embedding_size": 8, "mlp_hidden_size": [16, 8]}
MF, MLP = {"mf_train": True, "mlp_train": False}, {"mf_train": False, "mlp_train": True}
TABLES = {half: [f"{side}_{half}_embedding.weight" for side in ("user", "item")] for half in ("mf", "mlp")}


@pytest.fixture
def halves(options):
    """The files of both, by the kind of training and the name of the half."""
    options.update(HALF)
    files = {}
    for half, change in (("mf", MF), ("mlp", MLP)):
        files["sparse", half] = f"sparse-{half}.pth"
        # names of RecBole's files are those of the second
        os.rename(train("NeuMF", {**options, **change})[0].saved_model_file, files["sparse", half])
        config, network, *loaders = prepare("NeuMF", {**options, **change})
        Trainer(config, network).fit(*loaders[:2], saved=False, show_progress=False)
        files["dense", half] = f"stock-{half}.pth"
        # in the protocol in which RecBole alone writes
        content = {"config": config, "state_dict": network.state_dict()}
        torch.save(content, files["dense", half], pickle_protocol=4)
    return files


def dense_tables(file, half, of):
    state = of(file)
    if f"{TABLES[half][0]}.values" not in state:
        return [state[name] for name in TABLES[half]]
    tables = []
    for name in TABLES[half]:
        counts = state[f"{name}.row_offsets"].long().diff()
        table = torch.zeros(len(counts), 8)
        table[torch.repeat_interleave(counts), state[f"{name}.columns"].long()] = state[f"{name}.values"]
        tables.append(table)
    return tables


@pytest.mark.parametrize("mf, mlp", [("sparse", "sparse"), ("dense", "dense"), ("dense", "sparse")])
def test_a_neumf_starts_from_its_halves(options, halves, mf, mlp, caplog):
    caplog.set_level("INFO")
    paths = {"mf": halves[mf, "mf"], "mlp": halves[mlp, "mlp"]}
    start = {"use_pretrain": True, **{f"{half}_pretrain_path": path for half, path in paths.items()}}
    options = {**options, **start, "epochs": 1, "learning_rate": 0.0, "topology": "fixed"}
    assert run_recbole_dsl("NeuMF", "tiny", config_dict=options)["test_result"]
    assert any("start from the largest of the values that they were given" in m for m in caplog.messages)
    file = max((f"saved/{name}" for name in os.listdir("saved")), key=os.path.getmtime)
    for half, kind in (("mf", mf), ("mlp", mlp)):

        def read(path, kind=kind):
            return (
                read_checkpoint(path)["state_dict"]
                if kind == "sparse"
                else torch.load(path, weights_only=False)["state_dict"]
            )

        given = dense_tables(paths[half], half, read)
        started = dense_tables(file, half, lambda path: read_checkpoint(path)["state_dict"])
        for one, other in zip(given, started):
            alive = other != 0
            assert torch.equal(other[alive], one[alive])
            assert one.abs()[alive].min() >= one.abs()[~alive].max(), (
                "the largest, so the topology of a sparse one"
            )
    for path in paths.values():
        os.remove(path)
    loaded = load_data_and_model(file)
    assert torch.equal(
        loaded[1].user_mf_embedding.weight, dense_tables(file, "mf", lambda p: read_checkpoint(p)["state_dict"])[0]
    )


class Hostile:
    def __reduce__(self):
        return os.mkdir, ("made-by-a-file",)


@pytest.mark.parametrize("content", ["code", "text", "missing", "other", "number"])
def test_a_file_that_is_none_is_one_line_and_runs_nothing(options, content):
    options = {**options, **HALF, "use_pretrain": True, "mf_pretrain_path": "a.pth", "mlp_pretrain_path": "a.pth"}
    if content == "code":
        torch.save({"state_dict": {}, "more": Hostile()}, "a.pth")
    elif content == "text":
        with open("a.pth", "w") as file:
            file.write("no file of weights")
    elif content == "other":
        train("BPR", {**options, "epochs": 1})[0].save_pretrained_model(0, "a.pth")
    elif content == "number":
        torch.save(3, "a.pth")
    with pytest.raises(DSLError, match=r"mf_pretrain_path=a.pth: "):
        run_recbole_dsl("NeuMF", "tiny", config_dict=options)
    assert not os.path.exists("made-by-a-file")
