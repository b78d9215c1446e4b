"""The page of a report: what stands in it, and that it needs nothing but itself."""

import html
import re
import shlex
import shutil
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from recbole.config import Config
from recbole.trainer import Trainer

from recbole_dsl import DSLError, cli
from recbole_dsl.checkpoint.checkpoint_file import VERSION, write_checkpoint
from recbole_dsl.checkpoint.run_record import RunRecord, is_record
from recbole_dsl.report.again import as_word
from recbole_dsl.report.charts import Axis, Series, lines, short
from recbole_dsl.report.groups import Groups, Hits
from recbole_dsl.report.writing import Report, write_report
from tests.running import prepare, train

LABELLED = {
    "load_col": {"inter": ["user_id", "item_id", "rating"]},
    "threshold": {"rating": 4},
    "metrics": ["AUC", "LogLoss"],
    "valid_metric": "LogLoss",
    "eval_args": {"mode": "labeled", "group_by": "none"},
    "train_neg_sample_args": None,
}


class Page(HTMLParser):
    """The headings, the titles of figures and the words of each of a page."""

    def __init__(self, path):
        super().__init__()
        self.text = Path(path).read_text()
        self.headings, self.captions, self.open = [], [], []
        self.feed(self.text)

    def handle_starttag(self, tag, attrs):
        assert tag not in ("script", "link", "img", "iframe", "object")
        assert not {"src", "href", "onload", "onclick"} & {name for name, _ in attrs}
        if tag not in ("meta", "circle", "line", "polyline", "polygon"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag in self.open:
            while self.open.pop() != tag:
                pass

    def handle_data(self, data):
        kind = self.open[-1] if self.open else ""
        if kind in ("h2", "h3"):
            self.headings.append(data)
        elif kind == "figcaption":
            self.captions.append(data)


@pytest.fixture
def trained(options):
    options = {**options, "epochs": 6, "train_batch_size": 64, "eval_args": {"mode": "full"}}
    return train("BPR", options)[0]


def test_a_page_shows_everything_and_says_it_in_words(trained, data_path):
    write_report([trained.saved_model_file], "page.html", data_path)
    page = Page("page.html")
    for heading in (
        "Result and cost", "Training", "Topology", "Which rows hold the weights", "Who pays", "A training step",
        "Options and versions", "Loss", "Share exchanged", "Exploration rate", "Density of each tensor", "Users",
        "Items", "Time", "Memory", "Validation: MRR@10", "Validation: NDCG@10",
    ):  # fmt: skip
        assert heading in page.headings
    assert page.text.count("<figure>") == len(page.captions) and all(page.captions)
    assert f"{len(trained.topology_updates)}" in page.text
    assert "Of the epoch that is best on the validation data. Higher is better." in page.captions
    # the saved epoch, on the loss and on two metrics
    assert page.text.count('class="ring') == 3
    for name in ("user_embedding.weight", "item_embedding.weight", "version of torch", "learning_rate"):
        assert name in page.text
    for svg in re.findall(r"<svg.*?</svg>", page.text, flags=re.S):
        ET.fromstring(svg)
    assert not re.search(r"https?://|\bNaN\b|\bnan\b|\binf\b", page.text)


def test_the_first_items_are_those_of_recbole(trained, options):
    options = {**options, "topk": [10], "metrics": ["NDCG", "Recall"], "valid_metric": "NDCG@10", "epochs": 1}
    config, model, train_data, _, test_data = prepare("BPR", options)
    expected = Trainer(config, model).evaluate(test_data, load_best_model=False)
    hits = Hits.of(model, test_data)
    assert hits.all_ndcg == pytest.approx(expected["ndcg@10"], abs=6e-5)
    assert hits.all_recall == pytest.approx(expected["recall@10"], abs=6e-5)
    groups = Groups.of(train_data._dataset)
    for side, count in groups.counts.items():
        assert np.array_equal(np.sort(np.concatenate(groups.members[side])), np.arange(1, len(count)))


def test_the_most_popular_items_are_those_with_the_most_interactions(options):
    options = {**options, "eval_args": {"mode": "full"}}
    _, _, train_data, _, test_data = prepare("BPR", options)
    matrix = train_data._dataset.inter_matrix("csr").toarray()
    counts = matrix.sum(0)
    hits = Hits.of_popularity(counts, test_data)
    gains = {}
    for batch, history, rows, positive in test_data:
        for row, user in enumerate(batch["user_id"].tolist()):
            had = {0} if history is None else {0, *history[1][history[0] == row].tolist()}
            best = sorted(set(range(len(counts))) - had, key=lambda item: (-counts[item], item))[:10]
            wanted = set(positive[rows == row].tolist())
            gain = sum(1 / np.log2(place + 2) for place, item in enumerate(best) if item in wanted)
            gains[user] = gain / sum(1 / np.log2(place + 2) for place in range(min(10, len(wanted))))
    assert hits.ndcg.keys() == gains.keys() and len(gains) > 5
    assert [hits.ndcg[user] for user in gains] == pytest.approx(list(gains.values()), abs=1e-6)


def test_metrics_of_labels_are_those_of_recbole_and_have_their_direction(options, data_path):
    trainer, test_data = train("FM", {**options, **LABELLED, "epochs": 2})
    expected = trainer.evaluate(test_data)
    write_report([trainer.saved_model_file], "page.html", data_path)
    page = Page("page.html")
    assert f"<td>test LogLoss</td><td>{expected['logloss']:.4f}</td>" in page.text
    assert f"<td>test AUC</td><td>{expected['auc']:.4f}</td>" in page.text
    captions = " ".join(page.captions)
    assert "Higher is better; of LogLoss, lower." in captions and "Lowest in epoch" in captions
    assert "It chose the epoch that was saved" in captions and "Validation: LogLoss" in page.headings


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8)
    | st.sampled_from(["key", "value", "param", "os", "None", "true", "AUC", "MRR@10", "fixed", "re@1", "max"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
))  # fmt: skip
def test_recbole_reads_every_option_of_a_command_as_it_was(value):
    word = as_word(value)
    assert "=" not in word
    assert Config._convert_config_dict(None, {"option": word})["option"] == value
    assert as_word("uniform") == "uniform" and as_word("NDCG@10") == "NDCG@10"


@pytest.mark.parametrize("model, changes", [("BPR", {"epochs": 2}), ("FM", {**LABELLED, "epochs": 2})])
def test_the_command_of_a_page_trains_the_same_model(model, changes, options, data_path, monkeypatch):
    trained = train(model, {**options, **changes})[0]
    write_report([trained.saved_model_file], "page.html", data_path)
    (command,) = re.findall(r"<pre>(.*?)</pre>", Path("page.html").read_text())
    monkeypatch.setattr("sys.argv", ["recbole-dsl"])
    before = set(Path("saved").glob("*.pth"))
    cli.main(shlex.split(html.unescape(command))[1:])
    (again,) = set(Path("saved").glob("*.pth")) - before
    first, second = (
        torch.load(file, weights_only=True)["state_dict"] for file in (trained.saved_model_file, again)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_what_a_file_does_not_hold_is_said(trained, data_path):
    checkpoint = torch.load(trained.saved_model_file, weights_only=True)
    del checkpoint["record"]
    old = {**checkpoint, "version": VERSION - 1, "dataset": "gone", "run": "unknown"}
    write_checkpoint("saved/old.pth", old)
    write_report(["saved/old.pth"], "old.html")
    text = Page("old.html").text
    assert "kept no record of its epochs" in text
    assert "dataset=gone: must be a folder of atomic files" in text
    assert "Share exchanged" in text


def test_names_in_a_file_are_shown_and_not_run(trained, data_path):
    checkpoint = torch.load(trained.saved_model_file, weights_only=True)
    script = "<script>alert(1)</script>"
    checkpoint["config"]["own_options"] = [script]
    checkpoint["record"]["versions"] = {script: script}
    checkpoint["record"]["valid"] = {script: checkpoint["record"]["valid"]["ndcg@10"]}
    checkpoint["best_valid_result"] = {script: 0.5}
    for update in checkpoint["topology"]["updates"]:
        update["density"] = {f"{script}{name}": value for name, value in update["density"].items()}
    write_checkpoint("saved/hostile.pth", checkpoint)
    write_report(["saved/hostile.pth", trained.saved_model_file], "page.html", data_path)
    page = Page("page.html")
    # the title twice, the metric in the table, in figures and their points, a legend, an option, a version
    assert page.text.count("&lt;script&gt;") > 12
    assert "<script" not in page.text
    for svg in re.findall(r"<svg.*?</svg>", page.text, flags=re.S):
        ET.fromstring(svg)


def test_several_runs_stand_side_by_side(trained, options, data_path, capsys):
    dense = train("BPR", {**options, "density": 1})[0]
    files = [trained.saved_model_file, dense.saved_model_file]
    cli.main(["report", files[0], f"--against={files[1]}", f"--data_path={data_path}", "--output=both.html"])
    text = Page("both.html").text
    assert "density 0.3" in text and "density 1" in text
    headings = Page("both.html").headings
    assert headings.count("Cost") == headings.count("Quality against bytes") == headings.count("Memory") == 1
    # tiles and options of each, and one colour of each on all figures
    assert headings.count("density 0.3") == headings.count("density 1") == 2
    titles = re.findall(r'class="dot (s\d)"[^>]*><title>(density \S+):', text)
    assert set(titles) == {("s0", "density 0.3"), ("s1", "density 1")}
    assert "both.html: open it in a browser" in capsys.readouterr().err
    assert re.search(r"<td>[\d,]+<small>3.33 x</small></td>", text)


def test_what_a_warm_start_changed_is_shown(trained, options, data_path, tmp_path):
    shutil.copytree(data_path, tmp_path / "data")
    shutil.copytree(tmp_path / "data" / "tiny", tmp_path / "data" / "later")
    for file in (tmp_path / "data" / "later").iterdir():
        text = re.sub(r"^u([0-4])\t", r"new\1\t", file.read_text(), flags=re.M)
        file.with_name(file.name.replace("tiny", "later")).write_text(text)
    options |= {"data_path": str(tmp_path / "data"), "epochs": 2, "eval_args": {"mode": "full"}}
    night = train("BPR", {**options, "warm_start": trained.saved_model_file}, "later")[0]
    again = train("BPR", options, "later")[0]
    files = [night.saved_model_file, again.saved_model_file]
    write_report(files, "page.html", str(tmp_path / "data"))
    text = Page("page.html").text
    n_users = night.nights[0]["rows"]["user_id"][0]
    assert f"<td>user_id</td><td>{n_users}</td><td>5</td><td>5</td>" in text
    for name, (stayed, moved) in night.nights[0]["weights"].items():
        assert f"<td>{name}</td><td>{stayed:,}</td><td>{moved:,}</td>" in text
    cells = [
        re.findall(r"<td>(.*?)</td>", re.search(f"<td>users, {who}</td>.*?</tr>", text)[0])
        for who in ("there before", "new")
    ]
    (n_old, n_new), whole = (int(row[1]) for row in cells), Report(files, str(tmp_path / "data"))
    assert n_new == 5 and len(cells[0]) == 6
    for column, shown in zip((3, 4), re.findall(r"<b>([\d.]+)</b>NDCG@10", whole.page)):
        mean = (n_old * float(cells[0][column]) + n_new * float(cells[1][column])) / (n_old + n_new)
        assert mean == pytest.approx(float(shown), abs=2e-4)
    assert "--warm_start=FILE" in text
    # in a notebook
    assert html.unescape(re.search(r'srcdoc="(.*?)"', whole._repr_html_(), flags=re.S)[1]) == whole.page


def test_an_unwritable_page_or_a_strange_file_is_one_line(trained):
    Path("folder").mkdir()
    with pytest.raises(DSLError, match=r"output=folder: must be a file, and is a folder"):
        write_report([trained.saved_model_file], "folder")
    Path("strange.pth").write_text("zzz")
    with pytest.raises(DSLError, match=r"model_file=strange\.pth: must be a whole checkpoint"):
        write_report(["strange.pth"], "page.html")
    assert not Path("page.html").exists()


def test_a_record_notes_every_epoch(trained):
    checkpoint = torch.load(trained.last_model_file, weights_only=True)
    record = RunRecord.of(checkpoint["record"])
    assert record.epoch == list(range(6)) and record.step[-1] == trained.topology.step
    assert record.loss == [trained.train_loss_dict[epoch] for epoch in range(6)]
    assert record.valid["ndcg@10"][checkpoint["epoch"]] is not None
    assert is_record(record.to_dict()) and is_record({})
    assert not is_record({**record.to_dict(), "loss": [1.0]})
    assert not is_record({**record.to_dict(), "epoch": "zzz"})


def test_a_figure_holds_every_point_within_its_frame():
    xs = [1, 10, 1000]
    svg = lines([Series("one", xs, [0.0, None, 5.0])], Axis("x", is_log=True), Axis("y"), "title")
    circles = [(float(c.get("cx")), float(c.get("cy"))) for c in ET.fromstring(svg).iter("circle")]
    assert len(circles) == 2 and all(0 <= x <= 360 and 0 <= y <= 232 for x, y in circles)
    assert lines([Series("none", [], [])], Axis("x"), Axis("y"), "title") == ""
    noise = lines([Series("one", [0, 1], [0.4, 0.402])], Axis("epoch", is_whole=True), Axis("y"), "title")
    heights = [float(c.get("cy")) for c in ET.fromstring(noise).iter("circle")]
    assert abs(heights[0] - heights[1]) < 10 and ">0.5<" not in noise
    assert short(1_200_000) == "1.2M" and short(0.25) == "0.25"


@pytest.mark.parametrize(
    "model, changes, lacks",
    [
        ("MultiVAE", {"train_batch_size": 16}, set()),
        (
            "RecVAE",
            {"train_batch_size": 16, "update_interval": 2, "hidden_dimension": 32, "latent_dimension": 8},
            {"Time"},
        ),
        ("SASRec", {"load_col": None, "train_neg_sample_args": None, "hidden_size": 8, "inner_size": 8}, set()),
        ("CKE", {"load_col": None, "kg_embedding_size": 8}, {"Time"}),
        ("FM", {"load_col": {"inter": ["user_id", "item_id", "rating"]}, "threshold": {"rating": 4}}, {"Items"}),
    ],
)
def test_a_model_of_any_kind_has_a_page(options, data_path, model, changes, lacks):
    trainer = train(model, {**options, "epochs": 2, "update_interval": 2, **changes})[0]
    write_report([trainer.saved_model_file], "page.html", data_path)
    headings = set(Page("page.html").headings)
    assert {"Loss", "Exploration rate", "Options and versions"} <= headings
    assert ("Time" in headings) == ("Time" not in lacks)
