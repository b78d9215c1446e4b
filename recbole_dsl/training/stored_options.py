"""The options that a checkpoint holds: data, of which nothing is evaluated and which name no place."""

from collections.abc import Mapping, Sequence
from typing import Any

from recbole_dsl.training.checked_config import CheckedConfig

# where a run reads pickles from or writes to, and which processes and networks it uses, is said by who starts it
_NOT_STORED = {
    "checkpoint_dir",
    "config_files",
    "dataloaders_save_path",
    "dataset_save_path",
    "device",
    "gpu_id",
    "group_offset",
    "ip",
    "local_rank",
    "log_wandb",
    "nproc",
    "offset",
    "port",
    "process_timeout",
    "report",
    "resume",
    "save_dataloaders",
    "save_dataset",
    "single_spec",
    "verbose",
    "world_size",
}
# what a model of RecBole reads into its constructor; the checkpoint holds all that became of it
_WITHOUT_PRETRAINING = {
    "mf_pretrain_path": None,
    "mlp_pretrain_path": None,
    "pretrain_path": None,
    "use_pretrain": False,
}
# of these the constructor wants the file itself; any whole checkpoint of the model serves
_OF_AN_EARLIER_STAGE = ("pre_model_path", "warm_up")


def names_a_place(option: str) -> bool:
    """Whether ``option`` says where a run reads or writes, or by which processes and devices it is made."""
    return (
        option in _NOT_STORED
        or option in _WITHOUT_PRETRAINING
        or option in _OF_AN_EARLIER_STAGE
        or option.endswith("_path")
    )


class _GivenOptions(CheckedConfig):
    """What the user says, before it is known of which model."""

    def __init__(self, config_file_list: Sequence[str] | None, config_dict: Mapping[str, Any] | None):
        self.yaml_loader = self._build_yaml_loader()
        self.file_config_dict = self._load_config_files(list(config_file_list or ()) or None)
        self.variable_config_dict = self._load_variable_config_dict(dict(config_dict or {}))
        self.cmd_config_dict = self._load_cmd_line()
        self._merge_external_config_dict()


class StoredConfig(CheckedConfig):
    """A Config of options that a file holds: none is evaluated."""

    def _load_variable_config_dict(self, config_dict):
        return dict(config_dict or {})


def given_options(config_file_list: Sequence[str] | None, config_dict: Mapping[str, Any] | None) -> dict[str, Any]:
    """The options of the files and the dictionary, each as RecBole reads it."""
    return dict(_GivenOptions(config_file_list, config_dict).external_config_dict)


def options_without_places(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """The options of ``checkpoint`` for a file that goes elsewhere: none says where anything is."""
    left_out = _NOT_STORED | {"data_path"}
    return {name: value for name, value in checkpoint["config"].items() if name not in left_out}


def stored_options(checkpoint: Mapping[str, Any], path: str) -> dict[str, Any]:
    """The options of the run that ``checkpoint``, read from ``path``, is of, for a `StoredConfig`."""
    options = {name: value for name, value in checkpoint["config"].items() if name not in _NOT_STORED}
    options.update({name: value for name, value in _WITHOUT_PRETRAINING.items() if name in options})
    if options.get("train_method") == "after_pretrain":
        options["train_method"] = "no_pretrain"
    # that file need not exist any more
    options.update({name: path for name in _OF_AN_EARLIER_STAGE if options.get(name)})
    return options
