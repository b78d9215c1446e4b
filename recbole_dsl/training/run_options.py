"""What a RecBole Config says about Dynamic Sparse Learning, and which models it is for."""

import importlib.util
import sys
from logging import getLogger
from typing import Any

from recbole.config import Config
from recbole.utils import ModelType

from recbole_dsl.config import DEFAULTS, DSLConfig
from recbole_dsl.errors import DSLError
from recbole_dsl.training.option_names import check_option_names
from recbole_dsl.training.plain_data import plain_entries

# RecBole cannot tell without their packages, or counts them among the trained ones
_WITHOUT_GRADIENTS = {"XGBoost", "LightGBM", "NCEPLRec"}

# what RecBole imports when such a model is made or trained, and does not install
_PACKAGES = {"NCL": "faiss", "KGAT": "dgl", "KGIN": "torch_scatter", "MCCLK": "torch_scatter"}
# those of them that our extra installs on some releases of Python only: the last one, as 3.x
_LAST_PYTHON = {"dgl": 11}

# without which a model cannot be trained sparse; ranks below what the user gives, but for names, which are joined
_NEEDED = {
    # divides by the norms of rows, and an empty one makes its loss NaN
    "MCCLK": {"keep_rows": True},
    # takes angles of numbers that the modulus scales, and a modulus of zero has none
    "EulerNet": {"exclude": ["mu"]},
}


# options that tell one of several processes apart
OF_A_PROCESS = frozenset(
    {"local_rank", "world_size", "nproc", "ip", "port", "offset", "group_offset", "process_timeout"}
)
# options that Config makes from what it was given, in a form that it would not take
_DERIVED = OF_A_PROCESS | {"data_path", "device", "gpu_id", "single_spec", "train_neg_sample_args"}


def options_to_save(config: Config) -> dict[str, Any]:
    """The options of a run as plain data, from which the same Config can be built."""
    final = {k: v for k, v in config.final_config_dict.items() if k not in _DERIVED}
    given = {k: v for k, v in config.external_config_dict.items() if k not in OF_A_PROCESS}
    return plain_entries({**given, **final})


def refuse_without_gradients(name: str, model_type: ModelType | None = None) -> None:
    """Raise a DSLError for a model that is counted or solved for, not trained by gradients."""
    if not has_gradients(name, model_type):
        raise DSLError(f"model={name}: must be a model with weights trained by gradients, which it does not have")


def refuse_without_package(name: str) -> None:
    """Raise a DSLError for a model of RecBole whose own package is not installed; it would fail in training."""
    package = _PACKAGES.get(name)
    if package and importlib.util.find_spec(package) is None:
        last = _LAST_PYTHON.get(package, sys.version_info.minor)
        where = f" up to Python 3.{last}" if last < sys.version_info.minor else ""
        raise DSLError(f"model={name}: must have the package {package}, which our extra [models] installs{where}")


def is_of_recbole(model_class: type) -> bool:
    """Whether ``model_class`` comes with RecBole, which then knows all its options."""
    return model_class.__module__.split(".")[0] == "recbole"


def has_gradients(name: str, model_type: ModelType | None) -> bool:
    """Whether RecBole's model ``name`` is trained by gradients."""
    return name not in _WITHOUT_GRADIENTS and model_type not in (ModelType.TRADITIONAL, ModelType.DECISIONTREE)


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
    needed = _NEEDED.get(config["model"], {})
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
