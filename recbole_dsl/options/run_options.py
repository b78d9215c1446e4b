"""The DSL options in a RecBole Config, and the options to save with a run."""

from logging import getLogger
from typing import Any

from recbole.config import Config

from recbole_dsl.checkpoint.codec import plain_entries
from recbole_dsl.config import DEFAULTS, DSLConfig
from recbole_dsl.errors import DSLError
from recbole_dsl.options.checks import known_options
from recbole_dsl.options.names import check_option_names
from recbole_dsl.options.recbole_models import facts_of

# options of one of several processes
OF_A_PROCESS = frozenset(
    {"local_rank", "world_size", "nproc", "ip", "port", "offset", "group_offset", "process_timeout"}
)
# options that Config turns into a form that it would not take again
_DERIVED = OF_A_PROCESS | {"data_cache", "data_path", "device", "gpu_id", "single_spec", "train_neg_sample_args"}


def options_to_save(config: Config) -> dict[str, Any]:
    """The options of a run as plain data, from which the same Config can be built."""
    final = {k: v for k, v in config.final_config_dict.items() if k not in _DERIVED}
    given = {k: v for k, v in config.external_config_dict.items() if k not in OF_A_PROCESS}
    return plain_entries({**given, **final})


def _check_names(config: Config) -> None:
    """`check_option_names`; but only warn of words of the command line, which may be another program's."""
    given, words, known = dict(config.external_config_dict), {}, known_options(config)
    for name in config.cmd_config_dict:
        if name not in config.file_config_dict and name not in config.variable_config_dict:
            words[name] = given[name] if name == "own_options" else given.pop(name)
    check_option_names(given, known, of_recbole=False)
    try:
        check_option_names({**words, "own_options": given.get("own_options")}, known, of_recbole=False)
    except DSLError as error:
        getLogger().warning(f"command line: {error}")


def resolve_options(config: Config, defaults: dict[str, Any] | None = None) -> DSLConfig:
    """The DSL options of a RecBole ``config``, which are written back to it in the form in which they are used.

    Raises:
        DSLError: if one is wrong, or looks mistyped.
    """
    _check_names(config)
    needed = facts_of(config["model"]).needs
    given = {**needed, **(defaults or {}), **config.final_config_dict}
    if given.get("warm_start") is not None and "topology" not in config.external_config_dict:
        # on data that drifts, the exchange by gradient adds nothing to rows that are coded anew
        given["topology"] = "fixed"
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
        # None stays: what it stands for depends on other options, which the next run may change
        config[name] = None if given.get(name, DEFAULTS[name]) is None else value
    return dsl_config
