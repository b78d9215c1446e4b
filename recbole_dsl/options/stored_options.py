"""The options in a checkpoint, read as data: none is evaluated, and none names a place."""

from collections.abc import Mapping, Sequence
from typing import Any

from recbole_dsl.compat.option_places import NOT_STORED
from recbole_dsl.options.checked_config import CheckedConfig


class _GivenOptions(CheckedConfig):
    """The options that the user gives, read before the model is known."""

    def __init__(self, config_file_list: Sequence[str] | None, config_dict: Mapping[str, Any] | None):
        self.yaml_loader = self._build_yaml_loader()
        self.file_config_dict = self._load_config_files(list(config_file_list or ()) or None)
        self.variable_config_dict = self._load_variable_config_dict(dict(config_dict or {}))
        self.cmd_config_dict = self._load_cmd_line()
        self._merge_external_config_dict()


class StoredConfig(CheckedConfig):
    """A Config of options from a file, none of which is evaluated."""

    # the program that wrote it may have had code of its own
    must_be_read = False

    def _load_variable_config_dict(self, config_dict):
        return dict(config_dict or {})


def given_options(config_file_list: Sequence[str] | None, config_dict: Mapping[str, Any] | None) -> dict[str, Any]:
    """The options of the files and the dictionary, each as RecBole reads it."""
    return dict(_GivenOptions(config_file_list, config_dict).external_config_dict)


def options_without_places(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """The options of ``checkpoint`` but those that say where anything is, for a file that goes elsewhere."""
    left_out = NOT_STORED | {"data_path"}
    return {name: value for name, value in checkpoint["config"].items() if name not in left_out}
