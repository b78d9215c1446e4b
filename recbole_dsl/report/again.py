"""The command that trains a run again, with every option as RecBole reads it from the command line."""

import builtins
import math
import re
import shlex
from collections.abc import Mapping
from enum import Enum
from keyword import kwlist
from typing import Any

from recbole.config import Config, configurator

from recbole_dsl.options.stored_options import options_without_places
from recbole_dsl.options.table import DERIVED
from recbole_dsl.training.configs import config_without_data, stored_config

# what RecBole makes of the other options
_MADE = {*DERIVED, "valid_metric_bigger", "model", "dataset"}
# words, but for the names that RecBole's eval of an option finds, or takes for truth values
_PLAIN = re.compile(r"([A-Za-z_]\w*)(@\d+)?", re.ASCII)
_LOCAL = Config._convert_config_dict.__code__.co_varnames
_FOUND = {*vars(builtins), *vars(configurator), *kwlist, *_LOCAL, "true", "false"}


def changed_options(checkpoint: Mapping[str, Any], file: str) -> dict[str, Any]:
    """The options of the run of ``checkpoint``, which was read from ``file``, that differ from the defaults.

    Raises:
        DSLError: if today's RecBole refuses them.
    """
    config = config_without_data(checkpoint, file, {})
    # RecBole refuses the default for models whose default loss ranks all items
    needed = {name: value for name, value in checkpoint["config"].items() if name == "train_neg_sample_args"}
    defaults = stored_config(config.model_class, checkpoint["dataset"], needed).final_config_dict
    stored = [name for name in options_without_places(checkpoint) if name not in _MADE]
    # as they were given: RecBole does not take all of them in the form that it gives them
    given = checkpoint["config"]
    return {name: given[name] for name in stored if name in needed or config[name] != defaults.get(name)}


def command_of(checkpoint: Mapping[str, Any], changed: Mapping[str, Any], data_path: str | None) -> str:
    """The command that trains the run of ``checkpoint`` again, with the options that `changed_options` gave."""
    words = ["recbole-dsl", "train", f"--model={checkpoint['model']}", f"--dataset={checkpoint['dataset']}"]
    words += [f"--{name}={as_word(value)}" for name, value in sorted(changed.items())]
    words += [f"--data_path={data_path}"] if data_path else []
    # a checkpoint names no other file
    words += ["--warm_start=FILE"] if checkpoint["nights"] else []
    return " ".join(map(_quoted, words))


def as_word(value: Any) -> str:
    """``value`` as a word of the command line, which RecBole evaluates as Python and reads with one = only."""
    plain = _PLAIN.fullmatch(value) if isinstance(value, str) else None
    if plain and not {plain[1], plain[1].lower()} & _FOUND:
        return str(value)
    return _literal(value)


def _quoted(word: str) -> str:
    """``word`` for a shell, in the quotes that it does not have itself."""
    return f'"{word}"' if "'" in word and not set(word) & set('"$`\\!') else shlex.quote(word)


def _literal(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_literal(key)}: {_literal(one)}" for key, one in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_literal, value)) + "]"
    if isinstance(value, float) and not math.isfinite(value):
        return "1e999-1e999" if math.isnan(value) else f"{math.copysign(1, value):.0f}e999"
    if isinstance(value, Enum):
        return _literal(value.name)
    # within the quotes of a text, where = has another way to be written
    return repr(value).replace("=", r"\x3d")
