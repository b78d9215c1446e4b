"""What a RecBole Config says about Dynamic Sparse Learning."""

from logging import getLogger
from typing import Any

from recbole.config import Config

from recbole_dsl.checkpoint.plain_data import plain_entries
from recbole_dsl.config import DEFAULTS, DSLConfig
from recbole_dsl.errors import DSLError
from recbole_dsl.options.names import check_option_names
from recbole_dsl.options.recbole_models import facts_of

# options that tell one of several processes apart
OF_A_PROCESS = frozenset(
    {"local_rank", "world_size", "nproc", "ip", "port", "offset", "group_offset", "process_timeout"}
)
# options that Config makes from what it was given, in a form that it would not take
_DERIVED = OF_A_PROCESS | {"data_cache", "data_path", "device", "gpu_id", "single_spec", "train_neg_sample_args"}


def options_to_save(config: Config) -> dict[str, Any]:
    """The options of a run as plain data, from which the same Config can be built."""
    final = {k: v for k, v in config.final_config_dict.items() if k not in _DERIVED}
    given = {k: v for k, v in config.external_config_dict.items() if k not in OF_A_PROCESS}
    return plain_entries({**given, **final})


def _check_names(config: Config, known: set[str]) -> None:
    """`check_option_names`; of words of the command line, which RecBole reads whose ever it is, only a warning."""
    given, words = dict(config.external_config_dict), {}
    for name in config.cmd_config_dict:
        if name not in config.file_config_dict and name not in config.variable_config_dict:
            words[name] = given[name] if name == "own_options" else given.pop(name)
    check_option_names(given, known, of_recbole=False)
    try:
        check_option_names({**words, "own_options": given.get("own_options")}, known, of_recbole=False)
    except DSLError as error:
        getLogger().warning(f"command line: {error}")


def resolve_options(config: Config, defaults: dict[str, Any] | None = None) -> DSLConfig:
    """The DSL options of a RecBole ``config``, written back to it as they are used.

    Raises:
        DSLError: if one is wrong, or looks mistyped.
    """
    known = set(config.internal_config_dict).union(*config.parameters.values())
    _check_names(config, known)
    needed = facts_of(config["model"]).needs
    given = {**needed, **(defaults or {}), **config.final_config_dict}
    if "exclude" in needed:
        chosen = DSLConfig.build({"exclude": given["exclude"]}).exclude
        given["exclude"] = list(dict.fromkeys([*chosen, *needed["exclude"]]))
    dsl_config = DSLConfig.build(given)
    if str(config["learner"]).lower() == "sparse_adam" and config["clip_grad_norm"]:
        raise DSLError(
            f"clip_grad_norm={config['clip_grad_norm']}: must be None with learner=sparse_adam, as PyTorch has no "
            "norm of sparse gradients"
        )
    for name, value in dsl_config.to_dict().items():
        # what None stood for follows from the other options, which the next run may change
        config[name] = None if given.get(name, DEFAULTS[name]) is None else value
    return dsl_config
