"""Checks of what a model of RecBole reads beside the columns that options name: features, labels, histories."""

from collections.abc import Mapping

import numpy as np
from recbole.config import Config
from recbole.utils import InputType, ModelType

from recbole_dsl.errors import DSLError, refusal
from recbole_dsl.options.recbole_models import facts_of, is_of_recbole


def reads_graph(config: Config) -> bool:
    """Whether the model reads the files of a knowledge graph."""
    return config["MODEL_TYPE"] == ModelType.KNOWLEDGE or facts_of(config["model"]).reads_graph


def reads_labels(config: Config) -> bool:
    """Whether the model or a metric reads labels from the data, rather than from negative items."""
    return "labeled" in config["eval_args"]["mode"].values() or _learns_labels(config)


def check_item_features(config: Config, columns: Mapping[str, str]) -> None:
    """Refuse item features that .item lacks, or that the model would ignore."""
    option = facts_of(config["model"]).item_features
    if option is None:
        return
    names = config[option] if isinstance(config[option], list) else [config[option]]
    allowed = f"a column of .item that is loaded: {', '.join(columns)}"
    if not names:
        raise refusal(option, names, f"a list of one or more, each {allowed}")
    for name in names:
        if name not in columns:
            raise refusal(option, name, allowed)
        is_number = columns[name].startswith("float")
        if is_number and (option == "item_attribute" or name not in config["numerical_features"]):
            also = "" if option == "item_attribute" else ", or one of numerical_features"
            raise refusal(option, name, f"a column of tokens{also}, and is of type {columns[name]}")


def check_labels(config: Config, labels: np.ndarray) -> None:
    """Refuse labels that RecBole's losses, AUC or LogLoss cannot use."""
    is_learnt = is_of_recbole(config.model_class) and _learns_labels(config)
    others = labels[(labels < 0) | (labels > 1)]
    if len(others) and (is_learnt or {"auc", "logloss"} & {name.lower() for name in config["metrics"]}):
        raise refusal(
            "LABEL_FIELD",
            config["LABEL_FIELD"],
            f"a column of numbers in [0, 1], and has {others[0]:g}; threshold makes one",
        )


def check_histories(config: Config, columns: Mapping[str, str]) -> None:
    """Refuse presplit files without histories, or whose histories would get item ids of their own."""
    name = config["ITEM_ID_FIELD"] + config["LIST_SUFFIX"]
    if columns.get(name) != "token_seq":
        raise refusal(
            "benchmark_filename",
            config["benchmark_filename"],
            f"of files with the history of each line, {name}:token_seq (ITEM_ID_FIELD and LIST_SUFFIX), for "
            f"{config['model']}; the columns that are loaded are {', '.join(columns)}",
        )
    if name not in (config["alias_of_item_id"] or ()):
        raise refusal(
            "alias_of_item_id", config["alias_of_item_id"], f"['{name}'], so that items are the same in histories"
        )
    if config["model"] == "DIEN":
        raise refusal(
            "benchmark_filename",
            config["benchmark_filename"],
            "None with DIEN, which draws negative histories when RecBole divides the data",
        )


def check_lengths(config: Config, lengths: np.ndarray) -> None:
    """Refuse histories of presplit files that are empty, or too long for the model."""
    name = config["ITEM_ID_FIELD"] + config["LIST_SUFFIX"]
    if lengths.min() < 1:
        raise DSLError(f"dataset={config['dataset']}: {name} is empty in a line: must have one item or more")
    longest, allowed = int(lengths.max()), config["MAX_ITEM_LIST_LENGTH"]
    is_exact = facts_of(config["model"]).is_of_full_length
    if longest > allowed or (longest < allowed and is_exact):
        must = "" if is_exact else "at least "
        raise refusal("MAX_ITEM_LIST_LENGTH", allowed, f"{must}{longest}, the length of the longest {name}")


def _learns_labels(config: Config) -> bool:
    if config["train_neg_sample_args"]["distribution"] != "none":
        return False
    in_points = getattr(config.model_class, "input_type", None) == InputType.POINTWISE
    of_recbole = is_of_recbole(config.model_class) and facts_of(config["model"]).needs_labels
    return config["MODEL_TYPE"] == ModelType.CONTEXT or (in_points and of_recbole)
