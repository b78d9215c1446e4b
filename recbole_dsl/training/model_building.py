"""Making a run's model: sparse from the start, and with nothing read that runs."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from recbole.config import Config
from recbole.data.dataset import Dataset
from recbole.model.abstract_recommender import AbstractRecommender

from recbole_dsl.data.pretrained import readable_files
from recbole_dsl.options.checked_config import refused_in_one_line
from recbole_dsl.options.recbole_models import is_of_recbole
from recbole_dsl.sparse.deferred import deferred_tables


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
