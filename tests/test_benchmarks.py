"""The benchmarks in a reduced size: that they run and print what they promise; no time is judged."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
import scipy.stats
import torch
import yaml
from recbole.model.sequential_recommender import SASRec

from benchmarks import (
    deep_hashing,
    epochs,
    full_softmax,
    graphs,
    hashed,
    job,
    joint_codes,
    large,
    memory,
    memory_probes,
    new_items,
    one_column,
    quality,
    quality_by_data,
    quality_tables,
    quantised,
    scaling,
    serving,
    serving_fresh,
    serving_load,
    steps,
    topology_figure,
    updates,
    who_pays,
)
from benchmarks.alternate import Times, alternate, time_cells
from benchmarks.last_position import SASRec as LastPosition
from benchmarks.long_tails import ensure_dataset, is_made
from benchmarks.many_fields import SIZES, drawn
from benchmarks.peak import in_fresh_process, peak_bytes
from benchmarks.power_law import ensure_power_law
from benchmarks.quality_lines import Run, append_line, chosen_lines, read_lines
from benchmarks.quality_runs import options_of
from benchmarks.sides import SIDE_NAMES, FirstBatches, load, make_config, make_trainer

ROOT = Path(__file__).parent.parent
USERS, ITEMS, INTERACTIONS = 200, 300, 3000
SIZE = ["--batch", "256", "--density", "0.2", "--embedding_size", "8"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """(folder, name) of a small generated dataset."""
    folder = str(tmp_path_factory.mktemp("data"))
    return folder, ensure_power_law(folder, USERS, ITEMS, INTERACTIONS)


@pytest.fixture
def tables(capsys):
    """Run a script and give the `_rows_of_tables` that it prints."""

    def run(script, *arguments):
        script.main([*map(str, arguments)])
        printed = capsys.readouterr().out
        assert f"    python -m benchmarks.{script.__name__.rpartition('.')[2]} " in printed
        assert f"PyTorch {torch.__version__}" in printed
        return _rows_of_tables(printed)

    return run


def _rows_of_tables(page):
    """The tables of a Markdown page, each a list of rows without the head, a row a list of cells."""
    blocks = re.findall(r"(?:^\|.*\|\n)+", page, flags=re.MULTILINE)
    return [[line.strip("| ").split(" | ") for line in block.splitlines()[2:]] for block in blocks]


def test_scaling_writes_what_two_processes_send(tmp_path, monkeypatch):
    monkeypatch.setattr(scaling, "PAGE", tmp_path / "scaling.md")
    sizes = ["--rows", "400", "--graph_rows", "400", "--steps", "2", "--batch", "256"]
    scaling.main([*sizes, "--data_path", str(tmp_path)])
    (rows,) = _rows_of_tables(scaling.PAGE.read_text())
    assert [row[:4] for row in rows] == [
        [model, "400", density, processes]
        for model in ("BPR", "LightGCN")
        for density in ("1", "0.1")
        for processes in ("1", "2")
    ]
    assert [row[-1] for row in rows] == ["-", "1.000", "-", "0.100"] * 2


def positive(cell):
    return 0 < float(cell.replace(",", "").removesuffix(" x")) < float("inf")


def test_steps_times_every_side_at_every_size(tables, data):
    sides = list(steps.TRAINED)
    sizes = ["--rows", 400, 600, "--interactions", 5, "--rounds", 2, "--steps", 2, "--data_path", data[0]]
    (rows,) = tables(steps, *sizes, "--sides", *sides, *SIZE)
    expected = ["of it, RecBole's loader", *(SIDE_NAMES[side] for side in sides)]
    assert [row[:2] for row in rows] == [[size, name] for size in ("400", "600") for name in expected]
    assert all(positive(row[2]) and positive(row[5]) for row in rows)
    assert all(positive(row[4]) for row in rows if "loader" not in row[1])


def test_graphs_times_both_densities(tables, data):
    sizes = ["--datasets", "--nodes", 400, "--rounds", 1, "--steps", 1, "--batch", 64, "--data_path", data[0]]
    (rows,) = tables(graphs, *sizes)
    assert [row[1:3] for row in rows] == [["402", SIDE_NAMES[side]] for side in graphs._SIDES]
    assert all(positive(row[3]) and positive(row[5]) for row in rows)


@pytest.mark.parametrize(
    "model, sides",
    [("BPR", ["stock", "ours"]), ("LightGCN", ["stock", "ours_dense_fast_graph", "ours_fast_graph"])],
)
def test_epochs_times_training_and_evaluation(tables, data, model, sides):
    sizes = ["--batch", 512, "--eval_batch_size", 4096, 600, "--rounds", 2, "--data_path", data[0]]
    found = tables(epochs, "--model", model, "--dataset", data[1], *sizes)
    assert len(found) == 3
    for rows in found:
        assert [row[0] for row in rows] == [SIDE_NAMES[side] for side in sides]
        assert all(positive(row[1]) and positive(row[3]) for row in rows)


def test_updates_compares_a_dynamic_with_a_fixed_topology(tables, data):
    sizes = ["--rows", 400, "--interactions", 5, "--update_interval", 3, "--rounds", 2, "--data_path", data[0]]
    (rows,) = tables(updates, *sizes, *SIZE)
    assert [row[0] for row in rows] == ["dynamic", "fixed"]
    assert all(positive(row[1]) and positive(row[3]) for row in rows)


def test_memory_prints_every_table(tables, monkeypatch):
    # a process for each number would take most of the time of this test
    monkeypatch.setattr(memory, "in_fresh_process", lambda function, *arguments: function(*arguments))
    monkeypatch.setattr(memory, "_UPDATES", ((1, None), (4, 0.05)))
    live, update, checkpoint, build = tables(memory, "--rows", 500, "--build_rows", 2000, *SIZE)
    total = live[-1]
    assert total[0] == "total" and float(total[3]) < float(total[1]) < float(total[2])
    assert [row[0] for row in update] == ["1, None", "4, 0.05"]
    assert all(positive(row[4]) for row in update)
    assert all(positive(cell) for row in checkpoint for cell in row[1:])
    assert positive(build[0][1]) and build[0][2] == "1.000"


def test_live_bytes_are_those_of_the_alive_weights():
    sizes = {"embedding_size": 8, "train_batch_size": 64, "density": 0.25}
    dense, ours = (memory_probes.live_bytes(side, 498, sizes) for side in ("stock", "ours"))
    assert dense["weights"] == dense["gradients"] == 498 * 8 * 4
    assert ours["weights"] == ours["gradients"] == 498 * 8
    # and the optimizer's count of steps
    assert 0 < dense["moments"] - 2 * dense["weights"] < 20
    # a byte per alive weight, and offsets of four
    assert ours["indices"] == 498 * 2 + (498 + 2) * 4


def test_serving_times_searches_and_a_fresh_process(tables, monkeypatch, data):
    # what may not be installed
    for side in ("_faiss", "_implicit"):
        monkeypatch.setattr(serving, side, serving._dense)
    # a process of each takes most of the time of this test
    for side in ("the same, mmap=True", "ours, int8"):
        monkeypatch.delitem(serving_fresh.SIDES, side)
    sizes = ["--users", USERS, "--items", ITEMS, "--interactions", INTERACTIONS, "--epochs", 1, 1]
    small = ["--at_once", 4, "--one_by_one", 2, "--rounds", 1, "--tables", "power-law", "--data_path", data[0]]
    one, many, fresh = tables(serving, *sizes, *small, "--rows", "one", "many", "fresh")
    assert [row[1] for row in one] == [serving._DENSE, "ours"]
    assert [row[1] for row in many] == [serving._DENSE, "implicit", "faiss, IndexFlatIP", "ours"]
    assert all(positive(row[2]) and positive(row[4]) for row in one + many)
    assert [row[0] for row in fresh] == [*serving_fresh.SIDES]
    assert all(positive(cell) for row in fresh for cell in (row[1], *row[3:6]))


def test_serving_load_asks_a_server_that_answers_right(tables, data, capsys):
    pytest.importorskip("uvicorn")
    pytest.importorskip("prometheus_client")
    sizes = ["--users", USERS, "--items", ITEMS, "--interactions", INTERACTIONS, "--epochs", 1]
    (rows,) = tables(serving_load, *sizes, "--clients", 2, "--seconds", 0.5, "--data_path", data[0])
    assert [row[1] for row in rows] == 2 * ["all", "histories", "similar items", "users"]
    assert all(positive(cell) for row in rows for cell in row[3:])


def test_peak_is_that_of_the_work():
    assert in_fresh_process(peak_bytes, _take_and_give_back) == pytest.approx(50_000_000, rel=0.1)


def _take_and_give_back():
    # written to, as only then does the memory exist
    np.ones(50_000_000, dtype=np.uint8)


def test_large_runs_the_command(tables, data):
    sizes = ["--users", USERS, "--items", ITEMS, "--interactions", INTERACTIONS, "--data_path", data[0]]
    ((row,),) = tables(large, *sizes, *SIZE, "--options", "learning_rate=0.01")
    assert float(row[0]) >= 0
    assert positive(row[1]) and positive(row[2])


def test_large_says_what_the_command_said_when_it_fails():
    with pytest.raises(RuntimeError, match=r"density=.*: must be a number in"):
        large.run_command(["--model=BPR", "--dataset=ml-100k", "--density=2"])


def test_power_law_has_every_user_and_item_and_is_skewed(tmp_path):
    name = ensure_power_law(str(tmp_path), 500, 300, 20_000)
    file = tmp_path / name / f"{name}.inter"
    pairs = np.loadtxt(file, dtype=np.int64, skiprows=1)
    assert file.read_text().startswith("user_id:token\titem_id:token\n")
    for ids, n in ((pairs[:, 0], 500), (pairs[:, 1], 300)):
        counts = np.sort(np.bincount(ids, minlength=n))
        assert len(counts) == n and counts[0] >= 1 and counts.sum() == 20_000
        assert counts[-n // 10 :].sum() > 0.3 * counts.sum()
    before = file.stat().st_mtime_ns
    assert ensure_power_law(str(tmp_path), 500, 300, 20_000) == name
    assert file.stat().st_mtime_ns == before
    with pytest.raises(ValueError, match="at least 500"):
        ensure_power_law(str(tmp_path), 500, 300, 499)


def test_power_law_may_have_times_in_the_order_of_its_lines(tmp_path):
    without, name = (ensure_power_law(str(tmp_path), 50, 30, 200, times=times) for times in (False, True))
    rows = np.loadtxt(tmp_path / name / f"{name}.inter", dtype=np.int64, skiprows=1)
    assert np.array_equal(rows[:, :2], np.loadtxt(tmp_path / without / f"{without}.inter", np.int64, skiprows=1))
    assert np.array_equal(rows[:, 2], np.arange(200))


def test_alternate_takes_turns_and_drops_the_first_round():
    calls = []

    def side(name):
        def run():
            calls.append(name)
            return float(len(calls))

        return run

    times = alternate({"a": side("a"), "b": side("b")}, rounds=3)
    assert calls == ["a", "b"] * 4
    assert times == {"a": Times((3.0, 5.0, 7.0)), "b": Times((4.0, 6.0, 8.0))}
    assert time_cells(times["a"], times["b"], 1.0) == ["5.00", "3.00 - 7.00", "1.20 x"]


@pytest.fixture
def masked(data):
    """A masked trainer of density 0.2 that updates every 4 steps, and batches for 4 steps."""
    settings = {"data_path": data[0], "train_batch_size": 256, "embedding_size": 8, "learning_rate": 0.01}
    config = make_config("BPR", data[1], {**settings, "density": 0.2, "update_interval": 4})
    train_data, _, _ = load(config)
    return make_trainer("masked_dense", config, train_data._dataset, total_steps=100), FirstBatches(train_data, 4)


def test_masked_weights_stay_zero_and_the_budget_is_exact(masked):
    trainer, batches = masked
    budget = {p: round(0.2 * p.numel()) for p in trainer.masks}
    assert len(budget) == 2
    before = {p: mask.clone() for p, mask in trainer.masks.items()}
    for _ in range(5):
        trainer._train_epoch(batches, 0)
        for parameter, mask in trainer.masks.items():
            assert set(mask.unique().tolist()) == {0.0, 1.0}
            assert int(mask.sum()) == budget[parameter]
            assert not parameter[mask == 0].any()
            assert not parameter.grad[before[parameter] == 0].any()
            for moment in (trainer.optimizer.state[parameter][name] for name in ("exp_avg", "exp_avg_sq")):
                assert not moment[mask == 0].any()
            changed = int((mask != before[parameter]).sum())
            assert 0 < changed <= 2 * round(0.5 * budget[parameter]) and changed % 2 == 0
            before[parameter] = mask.clone()


def test_masked_exchanges_the_smallest_for_the_largest_gradients(masked):
    trainer, _ = masked
    trainer.steps = 4
    parameter, mask = next(iter(trainer.masks.items()))
    alive = mask.bool()
    gradient = torch.randn(parameter.shape)
    weights = parameter.detach().clone()
    with torch.no_grad():
        trainer._exchange(parameter, gradient)
    pruned, grown = alive & (mask == 0), ~alive & (mask == 1)
    assert pruned.sum() == grown.sum() > 0
    assert weights[pruned].abs().max() <= weights[alive & (mask == 1)].abs().min()
    assert gradient[grown].abs().min() >= gradient[~alive & (mask == 0)].abs().max()


QUALITY = [
    "--models",
    "BPR",
    "--datasets",
    "ml-100k",
    "--methods",
    "dense",
    "ours",
    "--epochs",
    2,
    "--seeds",
    2020,
]


def test_quality_resumes_where_it_was_killed_and_writes_its_tables_from_the_lines(tmp_path, capsys):
    file = tmp_path / "quality.jsonl"

    def run(*more):
        quality.main([*map(str, (*QUALITY, "--densities", 0.1, "--lines", file, *more))])
        return file.read_text()

    whole = run()
    lines = [json.loads(line) for line in whole.splitlines()]
    # three weight decays, and two more learning rates, of each method
    assert [line["method"] for line in lines] == ["dense"] * 5 + ["ours"] * 5
    assert all(0 < line["test_ndcg"] < 1 and line["bytes"] > 0 for line in lines)
    assert lines[-1]["weights"] == round(0.1 * lines[0]["weights"])
    # killed within the last line: it alone is trained again
    file.write_text(whole[:-100])
    capsys.readouterr()
    again = [json.loads(line) for line in run().splitlines() if line.endswith("}")]
    printed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert len(printed) == 1 and {**again[-1], "seconds": 0} == {**lines[-1], "seconds": 0}
    page = file.with_suffix(".md")
    best = max(lines[5:], key=lambda line: line["valid_ndcg"])
    assert f"| **ours** | {best['test_ndcg']:.4f} (" in page.read_text()
    page.write_text("Above.\n" + page.read_text() + "Below.\n")
    written = page.read_text()
    run("--tables")
    assert page.read_text() == written


def test_quality_chooses_by_the_mean_of_the_seeds_among_the_two_best_of_the_first(tmp_path):
    file = tmp_path / "quality.jsonl"

    def add(learning_rate, weight_decay, seed, valid_ndcg, density=0.1):
        run = Run("BPR", "ml-100k", "ours", density, seed, learning_rate, weight_decay, 2)
        append_line(file, {**vars(run), "valid_ndcg": valid_ndcg, "test_ndcg": 0.0})

    def chosen():
        return {(line["learning_rate"], line["weight_decay"]) for line in chosen_lines(read_lines(file))}

    for setting, valid_ndcg in {
        (0.002, 5e-6): 0.3,
        (0.002, 1e-6): 0.2,
        (0.004, 5e-6): 0.5,
        (0.001, 5e-6): 0.1,
    }.items():
        add(*setting, 2020, valid_ndcg)
    add(0.002, 2e-5, 2020, 0.1)
    assert chosen() == {(0.004, 5e-6)}
    # nothing is left to train but the two best with the other seed
    add(0.004, 5e-6, 2021, 0.1)
    add(0.002, 5e-6, 2021, 0.4)
    before = file.read_text()
    seeds = ["--methods", "ours", "--seeds", 2020, 2021, "--densities", 0.1, "--lines", file]
    quality.main([*map(str, (*QUALITY, *seeds))])
    assert file.read_text() == before
    assert chosen() == {(0.002, 5e-6)}
    add(0.002, 5e-6, 2020, 0.4, density=0.5)
    assert len(chosen_lines(read_lines(file))) == 3


def test_the_committed_tables_and_properties_are_those_of_the_committed_lines():
    lines = chosen_lines(read_lines(ROOT / "results" / "quality.jsonl"))
    page = (ROOT / "results" / "quality.md").read_text()
    assert quality_tables.tables(lines) in page
    assert quality_tables.summary(lines) in (ROOT / "docs" / "results.md").read_text()
    assert quality_by_data.table(lines, quality_by_data.read_facts()) in page
    assert quantised.table(read_lines(quantised.LINES)) in page
    assert quantised.table_of_methods(lines) in page
    ours = [line for line in lines if (line["method"], line["density"], line["seed"]) == ("ours", 0.1, 2020)]
    ours = [line for line in ours if not is_made(line["dataset"])]
    assert ours
    for line in ours:
        tuned = yaml.safe_load((ROOT / "properties" / f"{line['model']}-{line['dataset']}.yaml").read_text())
        assert all(tuned[key] == line[key] for key in ("learning_rate", "weight_decay", "density"))


def test_context_aware_models_are_compared_by_auc(tmp_path):
    file = tmp_path / "quality.jsonl"
    for method, density, valid_auc, test_auc in [
        ("dense", 1.0, 0.7, 0.78),
        ("ours", 0.1, 0.7, 0.785),
        ("ours", 0.1, 0.6, 0.9),
    ]:
        run = Run("DeepFM", "ml-100k", method, density, 2020, 0.001 * valid_auc, 5e-5, 40)
        append_line(file, {**vars(run), "valid_auc": valid_auc, "test_auc": test_auc, "test_logloss": 0.55})
    lines = chosen_lines(read_lines(file))
    assert "| **ours** | 0.7850 (+0.0050), 0.5500 |" in quality_tables.tables(lines)
    # tables of NDCG@10 leave them out
    assert not quality_tables.at_a_tenth(lines)
    assert quality_tables.seeds_at_a_tenth(lines, "auc") == {
        ("DeepFM", "ml-100k"): {"dense": [0.78], "ours": [0.785]}
    }


def test_models_in_int8_and_int4_have_a_row_for_all_seeds():
    run = {
        "model": "SASRec",
        "dataset": "beauty",
        "density": 0.1,
        "weights": 1000,
        "bytes": 5000,
        "test_ndcg": 0.3,
    }
    stored = {"int8": {"bytes": 1400, "ndcg": 0.25}, "int4": {"bytes": 900, "ndcg": 0.2}}
    table = quantised.table_of_methods([{**run, **stored, "method": "small_deployed"}, {**run, "method": "dense"}])
    row = "| SASRec, beauty | small dense, equal deployed bytes | 0.1 | 0.3000 (4) | 0.2500 (1) | 0.2000 (1) |"
    assert row in table and "| dense |" not in table
    seeds = [{**run, **stored, "method": "small_deployed", "test_ndcg": score} for score in (0.2, 0.4)]
    assert "| 0.3000 ± 0.1414 (4) | 0.2500 ± 0.0000 (1) |" in quantised.table_of_methods(seeds)


def test_no_two_tokens_of_a_field_are_hashed_alike():
    sizes = 944, 3, 62, 1683
    table = hashed.QuotientRemainder(torch.randn(sum(sizes), 16), sizes, collisions=7)
    rows = table(torch.arange(sum(sizes))).detach()
    start = 0
    for size in sizes:
        assert len(rows[start : start + size].unique(dim=0)) == size
        start += size
    assert len(table.quotients) + len(table.remainders) == sum(hashed.n_rows(size, 7) for size in sizes)
    assert rows.std() == pytest.approx(1, rel=0.1)


def test_rows_made_of_hashes_differ_between_tokens_and_are_the_same_for_one():
    weight = torch.randn(3000, 16) * 0.1
    rows = deep_hashing.DeepHash(weight, 8)
    tokens = torch.tensor([[7, 2999, 7], [0, 7, 1]])
    made = rows(tokens).detach()
    assert made.shape == (2, 3, 16)
    assert torch.equal(made[0, 0], made[0, 2]) and torch.equal(made[0, 0], made[1, 1])
    assert len(rows(torch.arange(3000)).detach().unique(dim=0)) == 3000
    assert rows(torch.arange(3000)).std().item() == pytest.approx(0.1, rel=0.2)
    assert sum(p.numel() for p in rows.parameters()) == deep_hashing.n_weights(8, 16)
    # a hash is a place on a line from -1 to 1, and as likely anywhere on it
    hashes = rows.encoded(torch.arange(3000))
    assert hashes.min() >= -1 and hashes.max() <= 1 and abs(hashes.mean()) < 0.01
    assert hashes.std().item() == pytest.approx(3**-0.5, rel=0.01)
    assert torch.equal(deep_hashing.DeepHash(weight, 8).encoded(tokens[0]), rows.encoded(tokens[0]))


def test_codes_of_items_fill_256_quantiles_evenly_and_follow_the_singular_vectors():
    interactions = scipy.sparse.random(60, 700, 0.2, "csr", random_state=0)
    weight = torch.randn(700, 8)
    table = joint_codes.JointCodes(weight, interactions, 4)
    counts = [np.bincount(codes, minlength=256) for codes in table.codes.T.numpy()]
    assert all(count.min() >= 2 and count.max() <= 3 for count in counts)
    first = np.linalg.svd(interactions.toarray())[2][0]
    ranks = scipy.stats.spearmanr(first, table.codes.numpy()).statistic[0, 1:]
    assert np.abs(ranks).max() > 0.999
    rows = table(torch.tensor([[0, 5], [6, 5]]))
    parts = [table.centroids[256 * part + int(table.codes[5, part])] for part in range(4)]
    assert torch.equal(rows[0, 1], torch.cat(parts)) and not rows[0, 0].any()
    assert torch.equal(table.weight[5], rows[0, 1])
    assert float(table.weight.detach().std()) == pytest.approx(1, rel=0.1)
    assert joint_codes.code_bytes(torch.nn.Sequential(table)) == 4 * 700


def test_labels_of_many_fields_are_drawn_from_their_tokens(tmp_path):
    tokens, probabilities = drawn(20_000)
    assert tokens.shape == (20_000, len(SIZES)) and (tokens.max(0) < SIZES).all()
    counts = np.sort(np.bincount(tokens[:, 1]))[::-1]
    assert counts[:100].sum() > 5 * counts[100:200].mean() * 20
    assert 0.2 < probabilities.mean() < 0.5 and probabilities.std() > 0.1
    folder = ensure_dataset("fields-300", str(tmp_path), str(tmp_path))
    text = (Path(folder) / "fields-300" / "fields-300.inter").read_text().splitlines()
    assert (
        len(text) == 301 and text[0].startswith("user_id:token\titem_id:token") and text[0].endswith("label:float")
    )


def test_the_last_position_is_scored_as_recbole_scores_it():
    options = {**options_of("SASRec", "ml-100k"), "n_layers": 2, "MAX_ITEM_LIST_LENGTH": 5}
    config = make_config("SASRec", "ml-100k", options)
    dataset = load(config)[0]._dataset
    stock, quick = SASRec(config, dataset).eval(), LastPosition(config, dataset).eval()
    quick.load_state_dict(stock.state_dict())
    items, lengths = torch.tensor([[3, 1, 4, 1, 5], [9, 2, 0, 0, 0], [6, 0, 0, 0, 0]]), torch.tensor([5, 2, 1])
    assert torch.allclose(quick(items, lengths), stock(items, lengths), atol=1e-5)


def test_who_pays_divides_users_and_items_into_groups(tmp_path):
    file = tmp_path / "quality.jsonl"
    methods = ["dense", "small_deployed", "published", "ours"]
    for method in methods:
        run = Run("BPR", "ml-100k", method, 1.0 if method == "dense" else 0.1, 2020, 0.002, 1e-6, 1)
        append_line(file, {**vars(run), "valid_ndcg": 0.1})
    who_pays.main(["--epochs", "1", "--lines", str(file)])
    page = (tmp_path / "who_pays-BPR-ml-100k.md").read_text()
    users, items, valid, widths = _rows_of_tables(page)
    assert [len(users), len(items), len(valid)] == [4, 6, 6]
    assert all(len(row) == 6 for row in users + items + valid + widths)
    assert sum(map(int, items[0][1:])) == 1682
    assert sum(int(cell.rstrip("%")) for cell in items[1][1:]) == pytest.approx(100, abs=3)
    assert all(0 <= float(cell.split(" ")[0]) <= 1 for row in users for cell in row[1:])
    # groups of users have one size; items have half as many weights each
    per_user = sum(map(float, widths[0][1:])) / 5
    of_items = sum(int(number) * float(width) for number, width in zip(items[0][1:], widths[1][1:]))
    assert of_items / 1682 == pytest.approx(per_user / 2, abs=0.2)
    assert (943 * per_user + of_items) / (943 + 1682) == pytest.approx(6.4, abs=0.2)
    assert (tmp_path / "who_pays-BPR-ml-100k.svg").read_text().lstrip().startswith("<?xml")


def test_who_pays_takes_a_model_without_users(tmp_path):
    file = tmp_path / "quality.jsonl"
    dataset = ensure_power_law(str(tmp_path), USERS, ITEMS, INTERACTIONS, times=True)
    for method in "dense", "ours":
        run = Run("GRU4Rec", dataset, method, 1.0 if method == "dense" else 0.1, 2020, 0.004, 0.0, 1)
        append_line(file, {**vars(run), "valid_ndcg": 0.1})
    of_run = ["--model", "GRU4Rec", "--dataset", dataset, "--data_path", str(tmp_path), "--epochs", "1"]
    who_pays.main([*of_run, "--methods", "dense", "--lines", str(file)])
    users, items, valid, widths = _rows_of_tables((tmp_path / f"who_pays-GRU4Rec-{dataset}.md").read_text())
    assert [len(users), len(items), len(valid)] == [2, 4, 4]
    assert [row[0] for row in widths] == ["items"]


def test_a_topology_is_drawn_from_its_start_on(tmp_path):
    topology_figure.main(["--model", "BPR", "--epochs", "2", "--folder", str(tmp_path)])
    assert (tmp_path / "topology-BPR-ml-100k.svg").read_text().lstrip().startswith("<?xml")


def test_full_softmax(tables):
    arguments = ["--models", "MultiVAE", "--items", "2000", "--batch", "16", "--rounds", "1"]
    times, memory = tables(full_softmax, *arguments, "--sides", "stock", "ours", "--tables", "time", "memory")
    assert [row[:3] for row in times] == [row[:3] for row in memory]
    assert [row[2] for row in times] == ["RecBole", "ours"]


@pytest.mark.by_hand
def test_one_column_trains_every_side(tables):
    arguments = ["--models", "FM", "--embedding_sizes", "8", "--seeds", "2020", "--epochs", "1"]
    (rows,) = tables(one_column, *arguments)
    sparse, dense, as_many = (int(row[3].replace(",", "")) for row in rows)
    assert sparse < dense and as_many == pytest.approx(dense, rel=0.01)
    assert all(0.5 < float(row[4]) < 1 for row in rows)


def test_jobs_of_a_process_each_have_their_parts_and_the_time_to_the_dense_quality(tables, data):
    folder, _ = data
    size = ["--power_law", USERS, ITEMS, INTERACTIONS, "--data_path", folder]
    jobs, to_quality = tables(job, "--rounds", 1, "--sides", "stock", "ours", "--to_quality", *size)
    assert [row[0] for row in jobs] == [row[0] for row in to_quality] == [SIDE_NAMES["stock"], SIDE_NAMES["ours"]]
    # what passes until the training is in the parts too
    whole, imports, _, *parts = (float(cell) for cell in jobs[1][1 : 5 + len(job.PARTS)])
    assert imports > 0 and min(parts) >= 0
    # all are rounded to a tenth
    assert abs(imports + sum(parts) - whole) <= 0.05 * (2 + len(parts)) + 1e-9


def test_jobs_can_end_when_the_training_begins(tables, tmp_path):
    size = ["--power_law", USERS, ITEMS, INTERACTIONS, "--times", "--data_path", tmp_path]
    model = ["--model", "SASRec", "--options", json.dumps({"train_neg_sample_args": None, "load_col": None})]
    (((_, whole, imports, until_trained, *_, train, evaluate, _, _, _, _, _, ndcg),),) = tables(
        job, "--rounds", 1, "--sides", "ours", "--until_training", *model, *size
    )
    assert positive(until_trained) and float(imports) + float(until_trained) <= float(whole) + 0.1
    assert (train, evaluate, ndcg) == ("0.0", "0.0", "-")


def test_new_items_are_ranked_by_every_side(tables, data):
    sizes = ["--datasets", data[1], "--least", 5, "--epochs", 2, "--data_path", data[0]]
    (rows,) = tables(new_items, *sizes)
    assert [row[1] for row in rows] == ["without them", "least squares alone", "with_items", "trained with them"]
    assert rows[0][3] == "0.0000" and rows[0][5] == "0 %" and all(positive(row[2]) for row in rows)
