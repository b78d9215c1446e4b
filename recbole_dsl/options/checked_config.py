"""RecBole's Config, which refuses in one line whatever a run cannot use."""

import os
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import yaml
from recbole.config import Config
from recbole.evaluator import metrics_dict
from recbole.utils import get_model, get_trainer
from torch import nn

from recbole_dsl.config import nearest
from recbole_dsl.errors import DSLError, described, one_line, refusal, shown
from recbole_dsl.files import or_shipped
from recbole_dsl.options.checks import check_options, known_options
from recbole_dsl.options.names import check_option_names
from recbole_dsl.options.process_options import join_processes
from recbole_dsl.options.recbole_models import is_of_recbole, refuse_without_gradients, trainable_models

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# the most values that the options of a run may hold, and how deep they may be nested
_MOST_VALUES, _DEEPEST = 100_000, 32


class CheckedConfig(Config):
    """RecBole's Config, which checks every option before RecBole uses it.

    Attributes:
        must_be_read: whether options that nothing reads are refused.

    Raises:
        DSLError: naming the option or the file, its value and what is allowed.
    """

    must_be_read = True

    def __init__(
        self,
        model: str | type | None = None,
        dataset: str | None = None,
        config_file_list: Sequence[str] | None = None,
        config_dict: Mapping[str, Any] | None = None,
    ):
        if isinstance(config_file_list, (str, os.PathLike)):
            raise refusal("config_file_list", config_file_list, "a list of YAML files")
        if config_dict is not None and not isinstance(config_dict, Mapping):
            raise refusal("config_dict", config_dict, "a dict of options")
        refuse_endless(config_dict or {}, "config_dict")
        with refused_in_one_line("the options"):
            super().__init__(model, dataset, list(config_file_list or ()) or None, dict(config_dict or {}))

    def _load_cmd_line(self):
        # the command line may be that of a program that calls us; our own commands pass theirs on
        return {}

    def _load_config_files(self, file_list):
        options = {}
        for file in file_list or ():
            options.update(_read_options(file, self.yaml_loader))
        return options

    def _convert_config_dict(self, config_dict):
        converted = {}
        for name, value in config_dict.items():
            if not isinstance(name, str):
                raise DSLError(f"option {shown(name)}: its name must be a string")
            try:
                converted |= super()._convert_config_dict({name: value})
            except (Exception, SystemExit):
                # RecBole keeps a string that is no Python; keep one that Python fails on too
                converted[name] = value
        return converted

    def _get_model_and_dataset(self, model, dataset):
        model = self.external_config_dict.get("model") if model is None else model
        dataset = self.external_config_dict.get("dataset") if dataset is None else dataset
        model_class = _model_class(model)
        if not isinstance(dataset, str) or not dataset.strip():
            raise refusal("dataset", dataset, "the name of a folder of atomic files in data_path")
        return model_class.__name__, model_class, dataset

    def _init_device(self):
        options = self.final_config_dict
        if "local_rank" in options:
            join_processes(options, self.external_config_dict)
        else:
            super()._init_device()

    def _get_final_config_dict(self):
        given, defaults = self.external_config_dict, self.internal_config_dict
        check_names(self, self.must_be_read)
        trainer = get_trainer(self.model_class.type, self.model)
        check_options(given, defaults, self.model_class, own_optimizer=_makes_its_optimizer(trainer))
        return super()._get_final_config_dict()


def check_names(config: Config, must_be_read: bool = True) -> None:
    """Refuse options of ``config`` whose names are mistyped and, if ``must_be_read``, those that nothing reads.

    Raises:
        DSLError: naming the option, and the nearest that there is.
    """
    given, trainer = config.external_config_dict, get_trainer(config.model_class.type, config.model)
    of_recbole = must_be_read and _is_read_by_recbole_alone(config.model_class, trainer, given)
    check_option_names(given, known_options(config), of_recbole)


@contextmanager
def refused_in_one_line(what: str, is_of_a_file: bool = False) -> Iterator[None]:
    """Turn an error within it, before the training, into a DSLError that begins with ``what``.

    An error that this package raises is a bug of its own and is not turned into one, unless the content of a file,
    which may be anything, is the reason.
    """
    try:
        yield
    except DSLError:
        raise
    except (Exception, SystemExit) as error:
        if not is_of_a_file and _is_ours(error):
            raise
        raise DSLError(f"{what}: {described(error, with_hint=True)}") from error


def refuse_endless(options: Any, source: str) -> None:
    """Refuse ``options`` that contain themselves, or more values than anybody writes.

    A few lines of YAML anchors and aliases are enough for either.

    Args:
        source: where they are from, for the error.
    """
    waiting, n_values = [(options, 0)], 0
    while waiting:
        value, depth = waiting.pop()
        n_values += 1
        if depth > _DEEPEST or n_values > _MOST_VALUES:
            raise DSLError(
                f"{source}: must hold at most {_MOST_VALUES:,} values, {_DEEPEST} deep, and none that holds itself"
            )
        value = list(value.values()) if isinstance(value, Mapping) else value
        if isinstance(value, (list, tuple, set)):
            waiting += [(part, depth + 1) for part in value]


def _is_ours(error: BaseException) -> bool:
    """Whether this package raised ``error``, rather than RecBole or what it calls."""
    frames = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    if not frames or not frames[-1].startswith(_PACKAGE + os.sep):
        return False
    return not frames[-1].startswith(os.path.join(_PACKAGE, "compat") + os.sep)


def _read_options(file: str, loader: type) -> Mapping[str, Any]:
    if not isinstance(file, (str, os.PathLike)):
        raise refusal("config_files", file, "paths of YAML files")
    file = or_shipped(os.fspath(file))
    if not os.path.isfile(file):
        raise refusal("config_files", file, "an existing YAML file")
    try:
        with open(file, encoding="utf-8") as opened:
            options = yaml.load(opened.read(), Loader=_with_distinct_keys(loader))
    except OSError as error:
        raise DSLError(f"config_files={file}: must be readable: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DSLError(f"config_files={file}: must be YAML in UTF-8, and byte {error.start + 1} is not") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise DSLError(f"config_files={file}: must be YAML: {one_line(str(error))}") from error
    if options is None:
        return {}
    refuse_endless(options, f"config_files={file}")
    if not isinstance(options, dict) or not all(isinstance(name, str) for name in options):
        kind = "a dict with other keys" if isinstance(options, dict) else f"a {type(options).__name__}"
        raise DSLError(f"config_files={file}: must be options, a name: value on each line, and is {kind}")
    return options


def _with_distinct_keys(loader: type) -> type:
    """The YAML loader ``loader``, but for keys that are given twice, which it refuses; PyYAML takes the last."""

    class Loader(loader):
        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
            keys = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
            for name, times in keys.items():
                # the merge key may be repeated
                if times > 1 and name != "<<":
                    raise yaml.constructor.ConstructorError(
                        None, None, f"{name} is given {times} times", node.start_mark
                    )
            return super().construct_mapping(node, deep)

    return Loader


def _model_class(model: Any) -> type:
    if isinstance(model, type):
        if not issubclass(model, nn.Module):
            raise refusal("model", model.__name__, "the name or the class of a model")
        return model
    if not isinstance(model, str) or not model.strip():
        raise refusal("model", model, "the name or the class of a model")
    try:
        return get_model(model)
    except (ValueError, ImportError, AttributeError) as error:
        # RecBole looks for an unknown model in its optional packages, and for bpr in the module of BPR
        refuse_without_gradients(model)
        match = nearest(model, trainable_models())
        if match:
            raise DSLError(f"model={shown(model)}: did you mean {match}?") from error
        raise refusal("model", model, "the name of a RecBole model trained by gradients") from error


def _is_read_by_recbole_alone(model_class: type, trainer: type, given: Mapping[str, Any]) -> bool:
    """Whether the model, the trainer and the metrics are RecBole's or ours, whose options are all known."""
    metrics = given.get("metrics")
    names = [str(name).lower() for name in (metrics if isinstance(metrics, (list, tuple)) else [metrics])]
    classes = [metrics_dict[name] for name in names if name in metrics_dict]
    return is_of_recbole(model_class) and all(map(is_of_recbole, classes)) and not _own_parts(trainer)


def _makes_its_optimizer(trainer: type) -> bool:
    return any("_build_optimizer" in vars(base) for base in _own_parts(trainer))


def _own_parts(trainer: type) -> list[type]:
    """The base classes of ``trainer`` that are neither RecBole's nor this package's."""
    known = "recbole", "recbole_dsl", "builtins"
    return [base for base in trainer.__mro__ if base.__module__.split(".")[0] not in known]
