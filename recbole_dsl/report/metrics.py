"""RecBole's metrics: their names, which way is better, and their values on test data that is no full sort."""

from collections.abc import Callable, Mapping, Sequence
from types import MethodType, SimpleNamespace
from typing import Any

import torch
from recbole.config import Config
from recbole.evaluator import Collector, Evaluator, metrics_dict, smaller_metrics
from recbole.model.abstract_recommender import AbstractRecommender
from recbole.trainer import Trainer
from torch import Tensor


def shown_name(metric: str) -> str:
    """``metric`` as it is written: NDCG@10 for ndcg@10, and LogLoss for logloss."""
    name, at, k = metric.partition("@")
    known = metrics_dict.get(name.lower())
    return f"{known.__name__ if known else name}{at}{k}"


def is_lower_better(metric: str) -> bool:
    """Whether RecBole takes a lower value of ``metric`` for the better one, as of LogLoss."""
    return metric.partition("@")[0].lower() in smaller_metrics


def which_way(metrics: Sequence[str]) -> str:
    """A sentence on which values of ``metrics`` are better."""
    lower = [shown_name(metric) for metric in metrics if is_lower_better(metric)]
    if not lower:
        return "Higher is better."
    if len(lower) == len(metrics):
        return "Lower is better."
    return f"Higher is better; of {' and '.join(lower)}, lower."


def with_difference(value: float, first: float) -> str:
    """How far ``value`` is from ``first``, in percent or as a factor; nothing if that cannot be said."""
    if not first or not value or value == first:
        return ""
    factor = value / first
    if not 0.5 < factor < 2:
        return f"{factor:.3g} x"
    change = 100 * (factor - 1)
    return f"{change:+.0f} %" if abs(change) >= 10 else f"{change:+.1f} %"


@torch.no_grad()
def tested(config: Config, model: AbstractRecommender, train_data: Any, test_data: Any) -> Mapping[str, float]:
    """The metrics of the options on ``test_data``, a loader with labels or sampled items, as RecBole has them."""
    model.eval()
    collector = Collector(config)
    collector.data_collect(train_data)
    stand_in = SimpleNamespace(
        model=model,
        config=config,
        device=config["device"],
        test_batch_size=config["eval_batch_size"],
        tot_item_num=test_data._dataset.item_num if test_data._dataset.iid_field else 0,
    )
    stand_in._spilt_predict = MethodType(Trainer._spilt_predict, stand_in)
    score: Callable[..., tuple[Any, Tensor, Tensor, Tensor]] = Trainer._neg_sample_batch_eval
    for batch in test_data:
        interaction, scores, *positive = score(stand_in, batch)
        collector.eval_batch_collect(scores, interaction, *positive)
    result = Evaluator(config).evaluate(collector.get_data_struct())
    return {name: float(value) for name, value in result.items()}
