"""Checks of a dataset: the files and columns that the options name, and what is left after filtering."""

import os
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd
import recbole
import yaml
from recbole.config import Config
from recbole.data.dataset import Dataset
from recbole.utils import EvaluatorType, ModelType

from recbole_dsl.data.atomic_files import AtomicFile, Column
from recbole_dsl.data.interactions import has_users_and_items
from recbole_dsl.data.model_columns import (
    check_histories,
    check_item_features,
    check_labels,
    check_lengths,
    reads_graph,
    reads_labels,
)
from recbole_dsl.errors import DSLError, refusal
from recbole_dsl.options.checked_config import refused_in_one_line
from recbole_dsl.options.rules import INTERVAL

_FILTERS = (
    "user_inter_num_interval item_inter_num_interval val_interval filter_inter_by_user_or_item rm_dup_inter "
    "entity_kg_num_interval relation_kg_num_interval"
).split()


def check_dataset(config: Config) -> None:
    """Refuse a dataset that is missing, or lacks files or columns that the options name.

    Raises:
        DSLError: naming the dataset or the option, and what is allowed.
    """
    name, path = config["dataset"], config["data_path"]
    if config["dataset_save_path"]:
        return
    if os.path.isdir(path):
        check_columns(config, atomic_files(config))
        return
    listing = os.path.join(os.path.dirname(recbole.__file__), "properties", "dataset", "url.yaml")
    with open(listing, encoding="utf-8") as file:
        if name not in yaml.safe_load(file):
            raise DSLError(f"dataset={name}: must be a folder of atomic files at {path}")


def check_lines(config: Config) -> None:
    """Refuse lines of the dataset's files that RecBole would misread.

    Raises:
        DSLError: with the file, the line and the column.
    """
    if not config["dataset_save_path"]:
        for file, columns in atomic_files(config):
            file.check_lines(columns)


def atomic_files(config: Config) -> list[tuple[AtomicFile, list[Column]]]:
    """Every file that RecBole reads for ``config``, with the columns in its header.

    Raises:
        DSLError: if one is missing or has no header.
    """
    name, folder = config["dataset"], config["data_path"]
    parts = config["benchmark_filename"]
    suffixes = [(f"{part}.inter", "inter") for part in parts] if parts else [("inter", "inter")]
    wanted = [*(config["additional_feat_suffix"] or ())]
    wanted += ["kg", "link"] if reads_graph(config) else []
    optional = [one for one in ("user", "item") if os.path.isfile(os.path.join(folder, f"{name}.{one}"))]
    suffixes += [(one, one) for one in (*optional, *wanted)]
    found = []
    for suffix, source in suffixes:
        if config["load_col"] is not None and not config["load_col"].get(source):
            continue
        file = AtomicFile(
            path=os.path.join(folder, f"{name}.{suffix}"),
            dataset=name,
            source=source,
            separator=config["field_separator"],
            sequence_separator=config["seq_separator"],
            encoding=config["encoding"],
            ids=tuple(config[f"{field}_FIELD"] for field in _ID_FIELDS),
        )
        found.append((file, file.header()))
    return found


def check_columns(config: Config, files: Iterable[tuple[AtomicFile, list[Column]]]) -> None:
    """Refuse options that name columns which are missing or of another type.

    Raises:
        DSLError: naming the option, its value and the columns of the file.
    """
    files = list(files)
    _check_chosen_columns(config, files)
    loaded: dict[str, dict[str, str]] = {}
    for file, columns in files:
        chosen = _loaded(config, file.source, columns)
        if file.source in loaded and loaded[file.source] != chosen:
            file.refuse("must have the same columns as the other parts", line=1)
        loaded[file.source] = chosen
    inter = loaded["inter"]
    for option, source, why in _required(config, loaded):
        if config[option] not in loaded[source]:
            raise refusal(
                option, config[option], f"a column that is loaded of .{source}{why}: {_list(loaded[source])}"
            )
    for option in ("USER_ID_FIELD", "ITEM_ID_FIELD"):
        if inter.get(config[option], "token") != "token":
            raise refusal(option, config[option], f"a column of type token, and is {inter[config[option]]}")
    if _reads_time(config) and inter[config["TIME_FIELD"]] != "float":
        raise refusal(
            "TIME_FIELD", config["TIME_FIELD"], f"a column of type float, and is {inter[config['TIME_FIELD']]}"
        )
    everywhere = {name: kind for columns in loaded.values() for name, kind in columns.items()}
    for field in config["threshold"] or ():
        if not inter.get(field, "").startswith("float"):
            raise refusal("threshold", config["threshold"], f"of a float column of .inter: {_list(inter)}")
    _check_values(config, everywhere)
    for option, names in _named_columns(config):
        for name in names:
            if name not in everywhere:
                raise refusal(option, name, f"a column that is loaded: {_list(everywhere)}")
    for name in config["numerical_features"] or ():
        if not everywhere[name].startswith("float"):
            raise refusal("numerical_features", name, f"a column of type float, and is {everywhere[name]}")
    check_item_features(config, loaded.get("item", {}))
    if config["MODEL_TYPE"] == ModelType.SEQUENTIAL and config["benchmark_filename"]:
        check_histories(config, inter)
    for option in ("alias_of_user_id", "alias_of_item_id", "alias_of_entity_id", "alias_of_relation_id"):
        for name in config[option] or ():
            if not everywhere[name].startswith("token"):
                raise refusal(option, name, f"a column of tokens, and is of type {everywhere[name]}")
    for source in config["unused_col"] or ():
        if source not in loaded:
            raise refusal("unused_col", config["unused_col"], f"of files that are read: {', '.join(loaded)}")


def check_loaded(config: Config, dataset: Dataset) -> None:
    """Refuse a loaded dataset that no model can learn from.

    Raises:
        DSLError: naming the dataset and what it lacks.
    """
    name = config["dataset"]
    if not has_users_and_items(dataset):
        return
    # without the padding
    items = dataset.item_num - 1
    if items < 1:
        raise _nothing_left(config)
    if items < 2:
        raise DSLError(f"dataset={name}: {name}.inter has one item: must have two or more")
    largest = max(config["topk"])
    if config["eval_type"] == EvaluatorType.RANKING and largest > dataset.item_num:
        raise refusal("topk", largest, f"at most {items}, the number of items in {name}")
    inter = dataset.inter_feat
    if reads_labels(config):
        check_labels(config, np.asarray(inter[config["LABEL_FIELD"]]))
    if config["MODEL_TYPE"] != ModelType.SEQUENTIAL or not isinstance(inter, pd.DataFrame):
        return
    if config["benchmark_filename"]:
        check_lengths(config, np.asarray(inter[config["ITEM_LIST_LENGTH_FIELD"]]))
    elif not inter[dataset.uid_field].duplicated().any():
        raise DSLError(f"dataset={name}: no user has two interactions: a sequential model must have such users")


@contextmanager
def explained(config: Config) -> Iterator[None]:
    """Within it, an error of RecBole's while it reads or splits the dataset becomes a DSLError with its cause."""
    with refused_in_one_line(f"dataset={config['dataset']}"):
        try:
            yield
        except DSLError:
            raise
        except Exception as error:
            _explain(config, error)
            raise


_ID_FIELDS = ("USER_ID", "ITEM_ID", "HEAD_ENTITY_ID", "TAIL_ENTITY_ID", "RELATION_ID", "ENTITY_ID")


def _explain(config: Config, error: Exception) -> None:
    """Raise a DSLError in place of ``error`` if its cause is known."""
    name, raised_by = config["dataset"], traceback.extract_tb(error.__traceback__)[-1].name
    if raised_by == "_reset_index":
        raise _nothing_left(config) from error
    if raised_by == "get_used_ids":
        raise DSLError(
            f"dataset={name}: a user has interacted with all items: must leave one to be a negative item"
        ) from error
    if not config["dataset_save_path"]:
        for file, columns in atomic_files(config):
            file.check_numbers(columns)


def _nothing_left(config: Config) -> DSLError:
    used = [f"{option}={config[option]}" for option in _FILTERS if config[option] not in (None, "[0,inf)")]
    rest = f", all filtered away by {' '.join(used)}" if used else ""
    return DSLError(f"dataset={config['dataset']}: nothing is left of its interactions{rest}: must leave some")


def _loaded(config: Config, source: str, columns: Iterable[Column]) -> dict[str, str]:
    wanted = (config["load_col"] or {}).get(source, "*")
    unwanted = (config["unload_col"] or {}).get(source, ())
    return {
        column.name: column.type
        for column in columns
        if (wanted == "*" or column.name in wanted) and column.name not in unwanted
    }


def _check_chosen_columns(config: Config, files: Iterable[tuple[AtomicFile, list[Column]]]) -> None:
    """Check the columns that the user has chosen; those of RecBole's defaults may be missing."""
    there: dict[str, list[str]] = {}
    for file, columns in files:
        there.setdefault(file.source, []).extend(column.name for column in columns)
    needed = ["inter", *(["kg", "link"] if reads_graph(config) else [])]
    missing = [source for source in needed if source not in there]
    if missing:
        raise refusal("load_col", config["load_col"], f"of {' and '.join(missing)} too")
    for option in ("load_col", "unload_col"):
        for source, names in (config.external_config_dict.get(option) or {}).items():
            if names and source not in there and not _is_known(config, source):
                raise refusal(f"{option}[{source}]", names, f"of files that are read: {_list(there)}")
            if names != "*" and source in there:
                for name in names:
                    if name not in there[source]:
                        raise refusal(
                            f"{option}[{source}]", name, f"a column of .{source}: {_list(there[source])}"
                        )
    for source in (config["load_col"] or {}).keys() & (config["unload_col"] or {}).keys():
        if config["load_col"][source] and config["load_col"][source] != "*" and config["unload_col"][source]:
            raise refusal(
                "unload_col", config["unload_col"], f"left out for {source} with load_col, which names some"
            )


def _is_known(config: Config, source: str) -> bool:
    """Whether any run reads a file with this suffix: one file of options may serve several models."""
    file = os.path.join(config["data_path"], f"{config['dataset']}.{source}")
    return source in ("user", "item", "kg", "link") or os.path.isfile(file)


def _required(config: Config, loaded: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(option, file, why) for each column that an option names and that must be loaded."""
    required = []
    if config["USER_ID_FIELD"] is not None:
        required += [("USER_ID_FIELD", "inter", ""), ("ITEM_ID_FIELD", "inter", "")]
    required += [("USER_ID_FIELD", "user", "")] if "user" in loaded else []
    required += [("ITEM_ID_FIELD", "item", "")] if "item" in loaded else []
    if _reads_time(config):
        required.append(("TIME_FIELD", "inter", ", as eval_args orders by time"))
    if "kg" in loaded:
        fields = ("HEAD_ENTITY_ID_FIELD", "TAIL_ENTITY_ID_FIELD", "RELATION_ID_FIELD")
        required += [(field, "kg", "") for field in fields]
    if "link" in loaded:
        required += [("ITEM_ID_FIELD", "link", ""), ("ENTITY_ID_FIELD", "link", "")]
    if config["model"] == "DMF" and config["inter_matrix_type"] == "rating":
        required.append(("RATING_FIELD", "inter", " with inter_matrix_type=rating"))
    if reads_labels(config) and not config["threshold"]:
        required.append(("LABEL_FIELD", "inter", ", or be made by threshold"))
    return required


def _reads_time(config: Config) -> bool:
    evaluation = config["eval_args"]
    by_time = evaluation["order"] == "TO" or "TS" in evaluation["split"]
    return by_time and not config["benchmark_filename"]


def _check_values(config: Config, everywhere: Mapping[str, str]) -> None:
    for field, values in (config["val_interval"] or {}).items():
        kind = everywhere.get(field)
        if kind is None:
            raise refusal("val_interval", field, f"of columns that are loaded: {_list(everywhere)}")
        if kind.startswith("float") and not INTERVAL.takes(values):
            raise refusal(f"val_interval[{field}]", values, f"{INTERVAL.allowed}, as the column is {kind}")
        if kind.startswith("token") and not isinstance(values, list):
            raise refusal(f"val_interval[{field}]", values, f"a list of tokens, as the column is {kind}")


def _named_columns(config: Config) -> Iterable[tuple[str, Iterable[str]]]:
    """(option, names) for each option that names columns of any file."""
    for option in ("normalize_field", "numerical_features", "discretization"):
        yield option, config[option] or ()
    for option in ("alias_of_user_id", "alias_of_item_id", "alias_of_entity_id", "alias_of_relation_id"):
        yield option, config[option] or ()
    weights = config["preload_weight"] or {}
    yield "preload_weight", [*weights, *weights.values()]


def _list(names: Iterable[str]) -> str:
    return ", ".join(names)
