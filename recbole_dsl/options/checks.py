"""Checks of what options may be, before anything is read or written."""

from collections.abc import Iterable, Mapping
from typing import Any

from recbole.config import Config
from recbole.evaluator import metric_types
from recbole.utils import EvaluatorType, InputType, ModelType

from recbole_dsl.errors import refusal
from recbole_dsl.options.recbole_models import facts_of, is_of_recbole, values_of
from recbole_dsl.options.rules import NAME, Rule, integer, like, number
from recbole_dsl.options.table import DERIVED, DICTS, NO_NEGATIVES, rule_of


def known_options(config: Config) -> set[str]:
    """The names of all options that RecBole has for the run of ``config``."""
    return {*config.internal_config_dict, *(name for names in config.parameters.values() for name in names)}


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
        if name in DERIVED and isinstance(value, str):
            raise refusal(name, value, DERIVED[name])
        if name in DICTS:
            _check_dict(name, value)
        elif name != "valid_metric" and not (name == "learner" and own_optimizer):
            rule = rule_of(name)
            if of_recbole:
                rule = values_of(model_class.__name__, name) or rule
                rule = rule or (like(name, defaults[name]) if name in defaults else None)
            if rule:
                rule.check(name, value)
    options = {**defaults, **given}
    _check_metrics(options)
    _check_transform(options, model_class)
    if model_class.type == ModelType.SEQUENTIAL:
        if not options["repeatable"]:
            raise refusal("repeatable", options["repeatable"], "True for a sequential model")
        if options["eval_args"].get("order", "RO") != "TO":
            raise refusal("eval_args[order]", options["eval_args"].get("order", "RO"), "TO for a sequential model")
    if of_recbole:
        _check_negatives(options, model_class)
    if options.get("normalize_field") is not None and options.get("normalize_all") is True:
        raise refusal("normalize_all", True, "False with normalize_field")
    without = [name for name in ("USER_ID_FIELD", "ITEM_ID_FIELD") if options.get(name) is None]
    if len(without) == 1:
        raise refusal(without[0], None, "a name, as the other of USER_ID_FIELD and ITEM_ID_FIELD is")


def check_processes(nproc: Any, world_size: Any, ip: Any, port: Any, group_offset: Any) -> None:
    """Refuse numbers of processes that cannot be, and addresses that are none."""
    integer(1).check("nproc", nproc)
    (integer(1) | Rule("-1 for nproc", lambda v: v == -1)).check("world_size", world_size)
    NAME.check("ip", ip)
    Rule("an integer in [1, 65535]", lambda v: 1 <= int(str(v)) <= 65535).check("port", port)
    integer(0).check("group_offset", group_offset)
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
        parts[part].check(f"{name}[{part}]", its_value)
    if name == "clip_grad_norm" and value and "max_norm" not in value:
        raise refusal(name, value, "a dict with max_norm, such as {'max_norm': 1.0}, or None")
    if name == "train_neg_sample_args" and value.get("dynamic") and not value.get("candidate_num"):
        allowed = "an integer >= 1 with dynamic negative items"
        raise refusal(f"{name}[candidate_num]", value.get("candidate_num", 0), allowed)


def _check_metrics(options: Mapping[str, Any]) -> None:
    metrics = options["metrics"]
    metrics = [name.lower() for name in ([metrics] if isinstance(metrics, str) else metrics)]
    values = [name for name in metrics if metric_types[name] == EvaluatorType.VALUE]
    if 0 < len(values) < len(metrics):
        allowed = f"only metrics of ranking, or only metrics of values ({', '.join(values)})"
        raise refusal("metrics", options["metrics"], allowed)
    modes = options["eval_args"].get("mode", "full")
    mode, instead, what = (
        ("full", "labeled", "metrics of values") if values else ("labeled", "full", "metrics of ranking")
    )
    if metrics and mode in (modes.values() if isinstance(modes, dict) else [modes]):
        allowed = f"{instead}, uniN or popN with metrics={','.join(metrics)}, which are {what}"
        raise refusal("eval_args[mode]", mode, allowed)
    if options["eval_step"] > 0:
        _check_valid_metric(options, metrics)
    elif not isinstance(options["valid_metric"], str):
        raise refusal("valid_metric", options["valid_metric"], "a metric of metrics, such as MRR@10")


def _check_valid_metric(options: Mapping[str, Any], metrics: Iterable[str]) -> None:
    topk = options["topk"] if isinstance(options["topk"], list) else [options["topk"]]
    results = []
    for name in metrics:
        has_no_k = name == "gauc" or metric_types[name] == EvaluatorType.VALUE
        results += [name] if has_no_k else [f"{name}@{k}" for k in topk]
    if str(options["valid_metric"]).lower() not in results:
        allowed = f"one of {', '.join(results)}, which metrics and topk give"
        raise refusal("valid_metric", options["valid_metric"], allowed)


def _check_transform(options: Mapping[str, Any], model_class: type) -> None:
    transform = options.get("transform")
    share = {"mask_itemseq": "mask_ratio", "crop_itemseq": "eta", "reorder_itemseq": "beta"}.get(transform)
    rule = number(0, 1)
    if share and not rule.takes(options.get(share)):
        raise refusal(share, options.get(share), f"{rule.allowed} with transform={transform}")
    reads_sequences = model_class.type == ModelType.SEQUENTIAL or not is_of_recbole(model_class)
    if not reads_sequences and transform not in (None, "user_defined"):
        raise refusal("transform", transform, f"None with {model_class.__name__}, which reads no sequences")


def _check_negatives(options: Mapping[str, Any], model_class: type) -> None:
    """Refuse negative items for a loss over all items, and none for a model that trains on them."""
    name, loss = model_class.__name__, options.get("loss_type")
    given = negatives = options.get("train_neg_sample_args")
    if isinstance(negatives, dict):
        negatives = negatives.get("distribution", "uniform")
    without = NO_NEGATIVES.takes(negatives)
    has_one_loss = hasattr(model_class, "input_type")
    if not has_one_loss and loss == "CE" and not without and model_class.type == ModelType.SEQUENTIAL:
        raise refusal("train_neg_sample_args", given, "None with loss_type=CE, which ranks all items")
    in_pairs = loss == "BPR"
    if has_one_loss:
        in_pairs = model_class.input_type == InputType.PAIRWISE and loss in (None, "BPR")
    if without and not facts_of(name).whole_users and (in_pairs or model_class.type == ModelType.KNOWLEDGE):
        raise refusal("train_neg_sample_args", given, f"a dict: {name} trains on negative items")
