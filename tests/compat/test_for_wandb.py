import sys

import pytest

from recbole_dsl import DSLError, run_recbole_dsl


def test_the_option_is_named_where_its_package_is_missing(options, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(DSLError, match=r"^log_wandb=True: must have the package wandb and a key \(wandb login\)"):
        run_recbole_dsl("BPR", "tiny", config_dict={**options, "log_wandb": True})
