"""Making a run's model: sparse from the start, and with nothing evaluated that an option or a file says."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import recbole.model.context_aware_recommender.kd_dagfm as kd_dagfm
import recbole.model.general_recommender.ldiffrec as ldiffrec
from recbole.config import Config
from recbole.data.dataset import Dataset
from recbole.model.abstract_recommender import AbstractRecommender

from recbole_dsl.errors import DSLError
from recbole_dsl.sparse.deferred import deferred_tables
from recbole_dsl.training.checked_config import is_of_recbole, refused_in_one_line
from recbole_dsl.training.pretrained import readable_files


def make_model(
    config: Config, dataset: Dataset, earlier: Mapping[str, Mapping[str, Any]] | None = None
) -> AbstractRecommender:
    """The model of ``config`` with dense weights, of which large ones take no memory yet.

    Args:
        earlier: what the constructor finds in a file of an earlier stage, by the path that an option gives it, for
            files that there are not.

    Raises:
        DSLError: if an option would have RecBole run what it says, or one of its models fails on one.
    """
    with (
        _tables_deferred(config),
        _nothing_evaluated(),
        readable_files(config, dataset, earlier),
        _refused_by_model(config),
    ):
        return config.model_class(config, dataset)


def _refused_by_model(config: Config) -> AbstractContextManager:
    # what fails in a model of RecBole is an option of it; one of the user's own says itself what is wrong
    return refused_in_one_line(f"model={config['model']}") if is_of_recbole(config.model_class) else nullcontext()


def _tables_deferred(config: Config) -> AbstractContextManager:
    # at density 1 every entry is to have the value that RecBole would have drawn for it
    if config["density"] == 1:
        return nullcontext()
    return deferred_tables()


@contextmanager
def _nothing_evaluated() -> Iterator[None]:
    """Within it, KD_DAGFM looks its teacher up instead of evaluating it, and LDiffRec reads no pickles."""
    numpy = SimpleNamespace(**{name: value for name, value in vars(np).items() if not name.startswith("__")})
    numpy.load = partial(_load_array, np.load)
    usual = ldiffrec.np
    kd_dagfm.eval, ldiffrec.np = _teacher, numpy
    try:
        yield
    finally:
        del kd_dagfm.eval
        ldiffrec.np = usual


def _teacher(name: str) -> Any:
    found = vars(kd_dagfm).get(name)
    if not (isinstance(found, type) and found.__module__ == kd_dagfm.__name__):
        names = [n for n, v in vars(kd_dagfm).items() if isinstance(v, type) and v.__module__ == kd_dagfm.__name__]
        raise DSLError(f"teacher={name:.80}: must be one of {', '.join(names)}")
    return found


def _load_array(load: Any, file: str, **_: Any) -> np.ndarray:
    try:
        return load(file, allow_pickle=False)
    except ValueError as error:
        raise DSLError(f"dataset: {file} must be an array of numbers as numpy.save writes it") from error
