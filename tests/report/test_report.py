"""The page of a report: what stands in it, and that it needs nothing but itself."""

import html
import re
import shlex
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from recbole.trainer import Trainer

from recbole_dsl import DSLError, cli
from recbole_dsl.checkpoint.checkpoint_file import VERSION, write_checkpoint
from recbole_dsl.checkpoint.run_record import RunRecord, is_record
from recbole_dsl.report.charts import Axis, Series, lines, short
from recbole_dsl.report.groups import Groups, Hits
from recbole_dsl.report.writing import write_report
from tests.running import prepare, train


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
        "Items", "Time", "Memory", "Validation: ndcg@10",
    ):  # fmt: skip
        assert heading in page.headings
    assert page.text.count("<figure>") == len(page.captions) and all(page.captions)
    assert f"{len(trained.topology_updates)}" in page.text
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


def test_the_command_of_a_page_trains_the_same_model(trained, data_path, monkeypatch):
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
    assert "both.html: open it in a browser" in capsys.readouterr().err


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
    assert short(1_200_000) == "1.2M" and short(0.25) == "0.25"


@pytest.mark.parametrize(
    "model, changes, lacks",
    [
        ("MultiVAE", {"train_batch_size": 16}, set()),
        ("RecVAE", {"train_batch_size": 16, "update_interval": 2}, {"Time"}),
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
