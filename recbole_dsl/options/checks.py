"""Checks of RecBole's own options, before anything is read or written."""

from collections.abc import Iterable, Mapping
from typing import Any

from recbole.evaluator import metric_types
from recbole.utils import EvaluatorType, InputType, ModelType

from recbole_dsl.errors import refusal
from recbole_dsl.options.recbole_models import facts_of, is_of_recbole, values_of
from recbole_dsl.options.rules import NAME, Rule, integer, like, number
from recbole_dsl.options.table import DICTS, NO_NEGATIVES, rule_of

# what RecBole makes of other options or of the model, whatever is given
_DERIVED = {
    "device": "left out: RecBole takes the GPU of gpu_id, or the CPU with gpu_id=''",
    "MODEL_TYPE": "left out: the model says it",
    "MODEL_INPUT_TYPE": "left out: the model or its loss_type says it",
    "eval_type": "left out: the metrics say it",
}


def check_options(
    given: Mapping[str, Any], defaults: Mapping[str, Any], model_class: type, own_optimizer: bool = False
) -> None:
    """Refuse options with which RecBole could not train ``model_class``.

    Args:
        given: what the user wrote in files, dicts and on the command line.
        defaults: what RecBole has for what is not given; that of its own models says what their options are.

    Raises:
        DSLError: naming the option, its value and what is allowed.
    """
    of_recbole = is_of_recbole(model_class)
    for name, value in given.items():
        if name in _DERIVED and isinstance(value, str):
            raise refusal(name, value, _DERIVED[name])
        if name == "valid_metric" or (name == "learner" and own_optimizer):
            continue
        if name in DICTS:
            _check_dict(name, value)
            continue
        rule = rule_of(name)
        if of_recbole:
            rule = values_of(model_class.__name__, name) or rule
            rule = rule or (like(name, defaults[name]) if name in defaults else None)
        if rule and not rule.takes(value):
            raise refusal(name, value, rule.wanted(value))
    options = {**defaults, **given}
    _check_metrics(options)
    _check_transform(options)
    if model_class.type == ModelType.SEQUENTIAL:
        _check_sequential(options)
    elif of_recbole and options.get("transform") not in (None, "user_defined"):
        raise refusal(
            "transform", options["transform"], f"None with {model_class.__name__}, which reads no sequences"
        )
    if of_recbole:
        _check_losses(options, model_class)
    if options.get("normalize_field") is not None and options.get("normalize_all") is True:
        raise refusal("normalize_all", True, "False with normalize_field")
    if (options.get("USER_ID_FIELD") is None) != (options.get("ITEM_ID_FIELD") is None):
        name = "USER_ID_FIELD" if options.get("USER_ID_FIELD") is None else "ITEM_ID_FIELD"
        raise refusal(name, None, "a name, as the other of USER_ID_FIELD and ITEM_ID_FIELD is")


def check_processes(nproc: Any, world_size: Any, ip: Any, port: Any, group_offset: Any) -> None:
    """Refuse numbers of processes that cannot be, and addresses that are none."""
    for name, value, rule in (
        ("nproc", nproc, integer(1)),
        ("world_size", world_size, integer(1) | Rule("-1 for nproc", lambda v: v == -1)),
        ("ip", ip, NAME),
        ("port", port, Rule("an integer in [1, 65535]", lambda v: 1 <= int(str(v)) <= 65535)),
        ("group_offset", group_offset, integer(0)),
    ):
        if not rule.takes(value):
            raise refusal(name, value, rule.wanted(value))
    if world_size != -1 and world_size < group_offset + nproc:
        raise refusal("world_size", world_size, f"at least group_offset + nproc, {group_offset + nproc}")


def _check_dict(name: str, value: Any) -> None:
    parts, instead = DICTS[name]
    if instead and instead.takes(value):
        return
    if not isinstance(value, dict):
        raise refusal(name, value, f"a dict of {', '.join(parts)}{', or None' if instead else ''}")
    for part, its_value in value.items():
        if part not in parts:
            raise refusal(f"{name}[{part}]", its_value, f"left out: the parts of {name} are {', '.join(parts)}")
        if not parts[part].takes(its_value):
            raise refusal(f"{name}[{part}]", its_value, parts[part].wanted(its_value))
    if name == "clip_grad_norm" and value and "max_norm" not in value:
        raise refusal(name, value, "a dict with max_norm, such as {'max_norm': 1.0}, or None")
    if name == "train_neg_sample_args" and value.get("dynamic") and not value.get("candidate_num"):
        raise refusal(
            f"{name}[candidate_num]", value.get("candidate_num", 0), "an integer >= 1 with dynamic negative items"
        )


def _check_metrics(options: Mapping[str, Any]) -> None:
    metrics = options["metrics"]
    metrics = [name.lower() for name in ([metrics] if isinstance(metrics, str) else metrics)]
    kinds = {metric_types[name] for name in metrics}
    if len(kinds) > 1:
        values = [name for name in metrics if metric_types[name] == EvaluatorType.VALUE]
        raise refusal(
            "metrics", options["metrics"], f"all of ranking or all of values, as {', '.join(values)} measure"
        )
    modes = options["eval_args"].get("mode", "full")
    modes = list(modes.values()) if isinstance(modes, dict) else [modes]
    if EvaluatorType.VALUE in kinds and "full" in modes:
        raise refusal(
            "eval_args[mode]",
            "full",
            f"labeled, uniN or popN with metrics={','.join(metrics)}, which are no ranks",
        )
    if EvaluatorType.RANKING in kinds and "labeled" in modes:
        raise refusal(
            "eval_args[mode]",
            "labeled",
            f"full, uniN or popN with metrics={','.join(metrics)}, which are of ranks",
        )
    if options["eval_step"] > 0:
        _check_valid_metric(options, metrics)
    elif not isinstance(options["valid_metric"], str):
        raise refusal("valid_metric", options["valid_metric"], "a metric of metrics, such as MRR@10")


def _check_valid_metric(options: Mapping[str, Any], metrics: Iterable[str]) -> None:
    topk = options["topk"]
    topk = topk if isinstance(topk, list) else [topk]
    results = [
        result for name in metrics for result in ([name] if _has_no_k(name) else [f"{name}@{k}" for k in topk])
    ]
    if str(options["valid_metric"]).lower() not in results:
        raise refusal(
            "valid_metric", options["valid_metric"], f"one of {', '.join(results)}, which metrics and topk give"
        )


def _has_no_k(metric: str) -> bool:
    """Whether the results of ``metric`` are without @k."""
    return metric == "gauc" or metric_types[metric] == EvaluatorType.VALUE


def _check_sequential(options: Mapping[str, Any]) -> None:
    if not options["repeatable"]:
        raise refusal("repeatable", options["repeatable"], "True for a sequential model")
    order = options["eval_args"].get("order", "RO")
    if order != "TO":
        raise refusal("eval_args[order]", order, "TO for a sequential model")


def _check_transform(options: Mapping[str, Any]) -> None:
    transform = options.get("transform")
    share = {"mask_itemseq": "mask_ratio", "crop_itemseq": "eta", "reorder_itemseq": "beta"}.get(transform)
    rule = number(0, 1)
    if share and not rule.takes(options.get(share)):
        raise refusal(share, options.get(share), f"{rule.allowed} with transform={transform}")


def _check_losses(options: Mapping[str, Any], model_class: type) -> None:
    name = model_class.__name__
    negatives = options.get("train_neg_sample_args")
    if isinstance(negatives, dict):
        negatives = negatives.get("distribution", "uniform")
    without = NO_NEGATIVES.takes(negatives)
    loss = options.get("loss_type")
    if hasattr(model_class, "input_type"):
        in_pairs = model_class.input_type == InputType.PAIRWISE and loss in (None, "BPR")
    else:
        in_pairs = loss == "BPR"
        if loss == "CE" and not without and model_class.type == ModelType.SEQUENTIAL:
            raise refusal(
                "train_neg_sample_args",
                options["train_neg_sample_args"],
                "None with loss_type=CE: it ranks all items",
            )
    if without and not facts_of(name).whole_users and (in_pairs or model_class.type == ModelType.KNOWLEDGE):
        raise refusal(
            "train_neg_sample_args",
            options.get("train_neg_sample_args"),
            f"a dict: {name} trains on negative items",
        )
