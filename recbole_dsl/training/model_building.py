"""Make the model of a run: sparse from the start, and without running anything that files say."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from logging import getLogger
from typing import Any

from recbole.config import Config
from recbole.data.dataset import Dataset
from recbole.data.transform import construct_transform
from recbole.model.abstract_recommender import AbstractRecommender
from recbole.utils import get_flops, set_color

from recbole_dsl.data.loading import RunData
from recbole_dsl.data.pretrained import readable_files
from recbole_dsl.errors import one_line
from recbole_dsl.options.checked_config import refused_in_one_line
from recbole_dsl.options.recbole_models import is_of_recbole
from recbole_dsl.sparse.deferred import deferred_tables


def make_model(
    config: Config, dataset: Dataset, earlier: Mapping[str, Mapping[str, Any]] | None = None
) -> AbstractRecommender:
    """The model of ``config`` with dense weights; large tables take no memory yet.

    Args:
        earlier: by path, what the constructor is to find in files of an earlier stage, which are not read then.

    Raises:
        DSLError: if an option would have RecBole run what it says, or one of its models fails on one.
    """
    with (
        _tables_deferred(config),
        readable_files(config, dataset, earlier),
        _refused_by_model(config),
    ):
        return config.model_class(config, dataset)


def sparse_model(
    config: Config, data: RunData, trainer_class: Any, as_in_run_recbole: bool = False
) -> AbstractRecommender:
    """The model of ``config``, sparse from the start: a dense table may not fit into memory.

    Args:
        as_in_run_recbole: whether a model of density 1 draws the same random numbers as in ``run_recbole``.
    """
    model = make_model(config, data.train._dataset)
    if as_in_run_recbole and config["density"] == 1:
        _count_flops(config, model.to(config["device"]), data)
    trainer_class.prepare(config, model)
    return model.to(config["device"])


def _count_flops(config: Config, model: AbstractRecommender, data: RunData) -> None:
    """Count FLOPs as ``run_recbole`` does before it trains, as the model may draw random numbers meanwhile."""
    logger = getLogger()
    try:
        flops = get_flops(model, data.dataset, config["device"], logger, construct_transform(config))
    except Exception as error:
        # a model's predict may raise anything; run_recbole trains no such model
        logger.info(f"RecBole cannot count the FLOPs of {config['model']}: {one_line(str(error))}")
    else:
        logger.info(set_color("FLOPs", "blue") + f": {flops}")


def _refused_by_model(config: Config) -> AbstractContextManager:
    # in a model of RecBole an option is at fault; errors of a user's own model say what is wrong there
    return refused_in_one_line(f"model={config['model']}") if is_of_recbole(config.model_class) else nullcontext()


def _tables_deferred(config: Config) -> AbstractContextManager:
    # at density 1 every entry gets the value that RecBole would draw for it
    if config["density"] == 1:
        return nullcontext()
    return deferred_tables()
