import importlib
import sys

import pytest

from recbole_dsl.compat import for_ray
from recbole_dsl.errors import DSLError


@pytest.fixture
def without_ray(tmp_path, monkeypatch):
    """A Ray that fails to import, and RecBole's quick start not imported yet."""
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "__init__.py").write_text("import pkg_resources_that_nobody_has\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in [n for n in sys.modules if n.split(".")[0] == "ray" or n.startswith("recbole.quick_start")]:
        monkeypatch.delitem(sys.modules, name)
    quick_start = importlib.import_module("recbole.quick_start.quick_start")
    yield quick_start
    for name in [n for n in sys.modules if n.startswith("recbole.quick_start")]:
        del sys.modules[name]


def test_the_quick_start_works_where_ray_does_not(without_ray, options):
    result = without_ray.objective_function({**options, "model": "BPR", "dataset": "tiny", "epochs": 1})
    assert 0 <= result["test_result"]["recall@10"] <= 1


def test_tuning_without_ray_says_what_to_install(without_ray):
    with pytest.raises(DSLError, match=r"pkg_resources_that_nobody_has.*pip install -U \"ray\[tune\]\"") as error:
        without_ray.tune.Tuner  # noqa: B018
    assert "\n" not in str(error.value)


def test_importing_ray_fails_as_without_us(without_ray):
    assert "ray" not in sys.modules
    with pytest.raises(ImportError, match="pkg_resources_that_nobody_has"):
        importlib.import_module("ray")


def test_outside_a_trial_nothing_is_reported(recwarn):
    for_ray.report({"recall@10": 0.5})
    assert not recwarn.list
