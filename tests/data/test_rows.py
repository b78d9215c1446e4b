"""Weights meet the rows that they were trained for, whatever has become of the data since."""

import os
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_dsl import DSLError, load_data_and_model, run_recbole_dsl
from recbole_dsl.checkpoint.checkpoint_file import read_checkpoint
from recbole_dsl.checkpoint.tokens import unpack_tokens
from recbole_dsl.data.loading import load_data
from recbole_dsl.data.rows import FileRows
from recbole_dsl.report.writing import write_report
from recbole_dsl.serving import Recommender, export
from recbole_dsl.training.configs import build_config
from recbole_dsl.tuning import trial
from tests.data.families import CE, FAMILIES, FEATURES, PARTS, dumped_again, of_family, warnings_in
from tests.running import prepare, train

NEW = {
    "user_id": ("inter", "u999\ti3\t5\t7\nu999\ti4\t5\t8\nu999\ti5\t5\t9\nu999\ti6\t5\t10"),
    "item_id": ("inter", "u1\ti999\t5\t-1"),
    "age": ("user", "u1000\t99\tM"),
    "class": ("item", "i1000\t1990\tc0 c99"),
    "head_id": ("kg", "e999\tr0\te1"),
}


def scores(loaded):
    """Token of a user -> token of an item -> score, for all."""
    config, model, dataset, _, _, test = loaded
    model.eval()
    users, items = (dataset.field2id_token[field] for field in (dataset.uid_field, dataset.iid_field))
    n_items = len(items) if config["model"] != "CKE" else dataset.item_num
    found = {}
    for at, user in enumerate(test._dataset.inter_feat[dataset.uid_field].tolist()):
        row = test._dataset.inter_feat[[at]]
        with torch.no_grad():
            if config["model"] == "FM":
                row = test._dataset.join(row).repeat(n_items - 1)
                row.update(dataset.get_item_feature()[torch.arange(1, n_items)])
                values = torch.cat([torch.zeros(1), model.predict(row)])
            else:
                values = model.full_sort_predict(row).view(-1)
        found[str(users[user])] = {str(items[i]): values[i].item() for i in range(1, n_items)}
    return found


def assert_close(found, expected):
    assert found.keys() == expected.keys()
    for user, row in expected.items():
        assert found[user] == pytest.approx(row, abs=1e-5)


@pytest.mark.parametrize("model", FAMILIES)
def test_data_in_another_order_gives_everybody_the_scores_of_before(trained, model, data_path, caplog):
    file = trained(model)
    before = scores(load_data_and_model(file))
    again = dumped_again(data_path)
    assert_close(scores(load_data_and_model(file, data_path=again)), before)
    assert not warnings_in(caplog)
    ours, its = (export(file, f"{n}.rdsl", data_path=p) for n, p in (("a", None), ("b", again)))
    assert str(ours).split("bytes")[1:] == str(its).split("bytes")[1:]
    one, other = (Recommender.load(f"{n}.rdsl").recommend(["u1", "u7", "u30"], k=5) for n in "ab")
    assert one[0].tolist() == other[0].tolist()


@pytest.mark.parametrize("model", FAMILIES)
def test_what_is_gone_keeps_its_row(trained, model, data_path, caplog):
    caplog.set_level("INFO")
    file = trained(model)
    gone = {"i7", "u3"} if model != "CKE" else {"i7", "u3", "e7", "e60", "r2"}
    before = load_data_and_model(file)
    after = load_data_and_model(file, data_path=dumped_again(data_path, without=gone))
    for field, tokens in before[2].field2id_token.items():
        assert after[2].field2id_token[field].tolist() == tokens.tolist(), field
    for name, tensor in before[1].state_dict().items():
        assert torch.equal(tensor, after[1].state_dict()[name]), name
    assert any("1 of its item_id are missing in the data, first 'i7'" in m for m in caplog.messages)
    if model in ("BPR", "FM"):
        expected, found = scores(before), scores(after)
        assert found.keys() == expected.keys() - gone
        for user, row in found.items():
            kept = {item: score for item, score in expected[user].items() if item not in gone}
            assert {item: row[item] for item in kept} == pytest.approx(kept, abs=1e-5)
    export(file, "a.rdsl", data_path=dumped_again(data_path, without=gone))
    assert "i7" in Recommender.load("a.rdsl").items.all


@pytest.mark.parametrize("model", FAMILIES)
def test_what_is_new_is_refused_by_name_at_every_entrance(trained, model, data_path, options):
    file = trained(model)
    before = sorted(os.listdir("copied"))
    # RecBole leaves out who has no features, and items that are not linked to the graph
    cases = {"FM": ["age", "class"], "CKE": ["user_id", "head_id"]}.get(model, ["user_id", "item_id"])
    for field in cases:
        again = dumped_again(data_path, more=[NEW[field]])
        token = {"age": "u1000", "class": "i1000", "head_id": "e999"}.get(field, f"{field[0]}999")
        expected = rf"model_file={file}: knows no \w+ '{token}', which dataset=tiny has"
        for enter in (load_data_and_model, lambda f, p: export(f, "a.rdsl", data_path=p)):
            with pytest.raises(DSLError, match=expected):
                enter(file, again)
    # one went and another came: the sizes are the same
    for old, new in (("i7", "i999"), ("u3", "u999")):
        again = dumped_again(data_path, renamed={old: new}.items())
        with pytest.raises(DSLError, match=rf"knows no \w+ '{new}', which dataset=tiny has"):
            load_data_and_model(file, data_path=again)
        with pytest.raises(DSLError, match=rf"^resume=copied/.*: knows no \w+ '{new}'"):
            run_recbole_dsl(config_dict={"resume": file, "data_path": again, "epochs": 2})
    assert not os.path.exists("a.rdsl") and sorted(os.listdir("copied")) == before


def test_a_renamed_feature_and_columns_in_another_order(trained, data_path):
    file = trained("FM")
    before = scores(load_data_and_model(file))
    with pytest.raises(DSLError, match="knows no age '99', which dataset=tiny has"):
        load_data_and_model(file, data_path=dumped_again(data_path, renamed={"23": "99"}.items()))
    again = dumped_again(data_path)
    for suffix, swapped in (("user", [0, 2, 1]), ("item", [2, 1, 0])):
        path = Path(again, "tiny", f"tiny.{suffix}")
        rows = [line.split("\t") for line in path.read_text().splitlines()]
        path.write_text("\n".join("\t".join(row[i] for i in swapped) for row in rows) + "\n")
    assert_close(scores(load_data_and_model(file, data_path=again)), before)
    path = Path(again, "tiny", "tiny.user")
    path.write_text(path.read_text().replace("gender:token", "sex:token"))
    with pytest.raises(DSLError, match="knows no sex, which dataset=tiny has in the place of 'gender'"):
        load_data_and_model(file, data_path=again)


def test_an_item_that_is_linked_otherwise_is_refused(trained, data_path):
    again = dumped_again(data_path)
    path = Path(again, "tiny", "tiny.link")
    path.write_text(path.read_text().replace("i7\te7", "i7\te8").replace("i8\te8", "i8\te7"))
    with pytest.raises(DSLError, match=r"item_id 'i[78]' is linked to 'e[78]' in dataset=tiny"):
        load_data_and_model(trained("CKE"), data_path=again)


@pytest.mark.parametrize("model", ["BPR", "SASRec", "CKE"])
def test_a_run_goes_on_with_the_rows_that_it_had(trained, model, data_path):
    file = trained(model)
    again = dumped_again(data_path)
    run_recbole_dsl(config_dict={"resume": file, "data_path": again, "epochs": 2})
    after = read_checkpoint(file.replace(".pth", ".last"))
    assert after["epoch"] == 1
    before = load_data_and_model(trained(model))[2]
    for field, place in after["rows"]["fields"].items():
        assert unpack_tokens(after["rows"]["tokens"][place]) == before.field2id_token[field][1:].tolist()
    # another entrance to what it wrote
    write_report([file], "page.html", again)
    assert "row of" not in Path("page.html").read_text()
    assert trial.test_trial(build_config(model, "tiny", None, of_family({"data_path": again}, model)), file)


@pytest.mark.parametrize("model", FAMILIES)
def test_data_that_others_made_is_refused_before_a_step(trained, model, options, data_path):
    file = trained(model)
    again = of_family({**options, "data_path": dumped_again(data_path)}, model)
    with_own_rows = train(model, {**again, "data_path": data_path, "checkpoint_dir": "own"})[0]
    _, _, *loaders = prepare(model, again)
    other = type(with_own_rows)(*prepare(model, again)[:2])
    weights = {name: tensor.clone() for name, tensor in other.model.state_dict().items()}
    message = r"row \d+ of \w+ is of '.*', and id \d+ of dataset=tiny is '.*'"
    with pytest.raises(DSLError, match=f"model_file={file}: {message}"):
        other.evaluate(loaders[2], model_file=file)
    for name, tensor in other.model.state_dict().items():
        assert torch.equal(tensor, weights[name])
    other.resume_checkpoint(file)
    for act in (lambda: other.fit(*loaders[:2]), lambda: other.evaluate(loaders[2], load_best_model=False)):
        with pytest.raises(DSLError, match=message):
            act()
    assert other.topology.step == with_own_rows.topology.step
    assert with_own_rows.evaluate(prepare(model, {**again, "data_path": data_path})[4], model_file=file)


@pytest.mark.parametrize("model", ["FM", "CKE", "SASRec", "DIEN"])
@given(data=st.data())
@settings(max_examples=6)
def test_every_table_of_the_data_says_what_it_said(model, data, data_path):
    options = {"data_path": data_path, **PARTS, **FAMILIES.get(model, FEATURES)}
    options |= CE if model in ("DIEN", "SASRec") else {}
    if model == "DIEN":
        columns = options["load_col"]
        options |= {"load_col": {**columns, "inter": [*columns["inter"], "rating"]}, "threshold": {"rating": 4}}
    file = FileRows({"rows": _rows(model, options)}, "model_file", "x.pth")
    without = data.draw(st.sets(st.sampled_from([f"{kind}{n}" for kind in "uie" for n in range(40)]), max_size=4))
    # what it is linked to is not in the graph any more
    without |= {f"i{token[1:]}" for token in without if token[0] == "e"}
    options["data_path"] = dumped_again(data_path, data.draw(st.integers(0, 99)), without)
    plain, given_ids = (load_data(build_config(model, "tiny", None, options), file=one) for one in (None, file))
    for name in plain.dataset.feat_name_list:
        for part in ("train", "valid", "test"):
            tables = [_as_tokens(getattr(one, part)._dataset, name) for one in (plain, given_ids)]
            gone = [row for row in tables[1] if row not in tables[0]]
            assert [row for row in tables[0] if row not in tables[1]] == []
            assert name in ("user_feat", "item_feat") or not gone


def _rows(model, options):
    from recbole_dsl.data.rows import rows_of

    return rows_of(load_data(build_config(model, "tiny", None, options)).train._dataset)


def _as_tokens(dataset, name):
    """The rows of a table, with tokens for ids and without what is drawn."""
    table = getattr(dataset, name)
    shared = {f"{field}_list": field for field in dataset.field2id_token}
    columns = []
    for field in table:
        tokens = dataset.field2id_token.get(shared.get(field, field))
        values = table[field].tolist()
        if field.startswith("neg_"):
            continue
        if tokens is not None:
            # tokens of a set come in any order
            values = [
                tuple(str(tokens[i]) for i in one if i) if isinstance(one, list) else str(tokens[one])
                for one in values
            ]
        columns.append(values)
    return sorted(zip(*(map(str, column) for column in columns)))
