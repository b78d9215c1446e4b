import sys

import pytest
from recbole.trainer import HyperTuning

from recbole_dsl.errors import DSLError


def objective(config_dict, files):
    return {
        "model": "BPR",
        "best_valid_score": config_dict["learning_rate"],
        "valid_score_bigger": True,
        "best_valid_result": {},
        "test_result": {},
    }


@pytest.mark.parametrize("algo", ["exhaustive", "random", "bayes"])
def test_a_search_finds_the_best(algo):
    pytest.importorskip("hyperopt")
    choices = {"choice": {"learning_rate": [0.1, 0.2, 0.3], "n_layers": [1, 2]}}
    tuner = HyperTuning(objective, params_dict=choices, algo=algo, max_evals=20, early_stop=20)
    tuner.run()
    assert tuner.best_score == 0.3
    assert len(tuner.params2result) == 6 or algo != "exhaustive"


def test_a_broken_hyperopt_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "hyperopt").mkdir()
    (tmp_path / "hyperopt" / "__init__.py").write_text("import numpy; numpy.no_such_name\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in [n for n in sys.modules if n.split(".")[0] == "hyperopt"]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(DSLError, match=r"no_such_name.*pip install") as error:
        HyperTuning(objective, params_dict={"choice": {"learning_rate": [0.1]}})
    assert "\n" not in str(error.value)
