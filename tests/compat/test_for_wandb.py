import pytest

from recbole_dsl import DSLError, run_recbole_dsl


def test_without_a_key_the_option_is_named(options, tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    with pytest.raises(DSLError, match=r"^log_wandb=True: must have the package wandb and a key \(wandb login\)"):
        run_recbole_dsl("BPR", "tiny", config_dict={**options, "log_wandb": True})
