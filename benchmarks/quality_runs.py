"""One run of benchmarks.quality: its settings, and the training."""

import re
import tempfile
from collections.abc import Callable
from typing import Any

import torch
from recbole.config import Config
from recbole.data.transform import construct_transform
from recbole.trainer import Trainer
from torch import nn

from benchmarks.long_tails import ensure_dataset
from benchmarks.many_fields import is_fields
from benchmarks.quality_lines import Run
from benchmarks.quality_methods import ALL_METHODS, Case
from benchmarks.sides import load, make_config
from recbole_dsl import sparse_weights

SEEDS = 2020, 2021, 2022

COMMON = {
    "load_col": {"inter": ["user_id", "item_id"]},
    "eval_args": {"split": {"RS": [0.8, 0.1, 0.1]}, "group_by": "user", "order": "RO", "mode": "full"},
    "metrics": ["Recall", "MRR", "NDCG", "Hit", "Precision"],
    "topk": [10],
    "valid_metric": "NDCG@10",
    "epochs": 200,
    "stopping_step": 10,
    "train_batch_size": 4096,
    "eval_batch_size": 409_600,
}
# context-aware models: whether a rating is 4 or more, from the features that RecBole's documentation loads
_CONTEXT = {
    "load_col": {
        "inter": ["user_id", "item_id", "rating"],
        "user": ["user_id", "age", "gender", "occupation"],
        "item": ["item_id", "release_year", "class"],
    },
    "threshold": {"rating": 4},
    "train_neg_sample_args": None,
    "eval_args": {"split": {"RS": [0.8, 0.1, 0.1]}, "group_by": None, "order": "RO", "mode": "labeled"},
    "metrics": ["AUC", "LogLoss"],
    "valid_metric": "AUC",
    "epochs": 40,
    "stopping_step": 5,
    "train_batch_size": 2048,
}
# of models that predict the next item: leave one out, every item a negative
_SEQUENTIAL = {
    "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
    "eval_args": {"split": {"LS": "valid_and_test"}, "group_by": "user", "order": "TO", "mode": "full"},
    "train_neg_sample_args": None,
    "MAX_ITEM_LIST_LENGTH": 20,
    "epochs": 60,
    "train_batch_size": 512,
    "eval_batch_size": 4096,
}
MODELS: dict[str, dict[str, Any]] = {
    "BPR": {"embedding_size": 64, "learning_rate": 0.002},
    # it stays at the items' popularity for some twenty epochs before it learns more
    "LightGCN": {"embedding_size": 64, "n_layers": 3, "learning_rate": 0.005, "stopping_step": 30},
    "NeuMF": {
        "mf_embedding_size": 64,
        "mlp_embedding_size": 64,
        "mlp_hidden_size": [128, 64],
        "learning_rate": 0.001,
        # it has no fast scoring of all items; small batches of pairs stay in the processor's cache
        "eval_batch_size": 16_384,
        "eval_step": 5,
        "stopping_step": 3,
    },
    "MultiVAE": {
        "mlp_hidden_size": [600],
        "latent_dimension": 128,
        "learning_rate": 0.001,
        "train_batch_size": 64,
    },
    "FM": {**_CONTEXT, "embedding_size": 64, "learning_rate": 0.005},
    "DeepFM": {**_CONTEXT, "embedding_size": 64, "learning_rate": 0.003},
    # its cross layers have the square of the fields times the columns
    "DCNV2": {**_CONTEXT, "embedding_size": 32, "mlp_hidden_size": [256, 256], "learning_rate": 0.001},
    "SASRec": {
        **_SEQUENTIAL,
        "hidden_size": 64,
        "inner_size": 256,
        "n_layers": 1,
        "learning_rate": 0.002,
    },
    "BERT4Rec": {
        **_SEQUENTIAL,
        "hidden_size": 64,
        "inner_size": 256,
        "n_layers": 1,
        "transform": "mask_itemseq",
        "mask_ratio": 0.2,
        "ft_ratio": 0.5,
        "learning_rate": 0.004,
        "stopping_step": 4,
    },
    "GRU4Rec": {
        **_SEQUENTIAL,
        "embedding_size": 64,
        "hidden_size": 128,
        "learning_rate": 0.004,
    },
}

SEQUENTIAL = [model for model, options in MODELS.items() if "MAX_ITEM_LIST_LENGTH" in options]
# ml-latest-small says nothing of its users
_NO_USERS = {"load_col": {name: columns for name, columns in _CONTEXT["load_col"].items() if name != "user"}}
_OF_DATASET: dict[tuple[str, str], dict[str, Any]] = {
    # narrow models rest on plateaus for a dozen epochs
    ("BPR", "lastfm"): {"stopping_step": 30},
    # what RecBole-GNN's authors chose for the dense model, whose figure on this dataset is then met
    ("LightGCN", "ml-1m"): {"learning_rate": 0.002, "reg_weight": 1e-4},
    # an evaluation takes as long as the training of a dozen epochs
    ("NeuMF", "lastfm"): {"learning_rate": 0.002, "eval_step": 10},
    **{(model, "ml-latest-small"): _NO_USERS for model, options in MODELS.items() if "threshold" in options},
}
# the whole file, whose label is given
_OF_FIELDS = {"load_col": None, "threshold": None, "embedding_size": 32}
# an evaluation of some 20,000 users takes as long as the training of several epochs, except of sequential models
_MANY_USERS = re.compile(r"beauty.*|groups-\d+")


def options_of(model: str, dataset: str) -> dict[str, Any]:
    """RecBole's options for all runs of ``model`` on ``dataset``; the learning rate is the first of the grid."""
    options = {**COMMON, **MODELS[model], **_OF_DATASET.get((model, dataset), {})}
    if is_fields(dataset):
        options |= _OF_FIELDS
    if _MANY_USERS.fullmatch(dataset) and model not in SEQUENTIAL:
        options |= {"eval_step": 10, "stopping_step": 3}
    return options


def train(
    run: Run, data_path: str, dense_weights: Callable[[int], dict[str, torch.Tensor]] = lambda seed: {}
) -> tuple[Trainer, tuple[Any, Any, Any]]:
    """Train ``run`` until its early stop.

    Args:
        dense_weights: gives the state of the best dense model of a seed, for methods that prune it.

    Returns:
        The trainer, its model that of the best epoch, and the loaders (train, valid, test). They are split by the
        first seed, whatever that of the run.
    """
    with tempfile.TemporaryDirectory() as folder:
        # loaders remember where they are in their shuffle, so every run has its own
        data = load(_config(run.with_(seed=SEEDS[0]), data_path, folder))
        config = _config(run, data_path, folder)
        trainer = ALL_METHODS[run.method](Case(config, data, lambda: dense_weights(run.seed)))
        trainer.fit(data[0], data[1], verbose=False, show_progress=False)
        trainer.evaluate(data[1])
    return trainer, data


def load_data(model: str, dataset: str, data_path: str) -> tuple[Any, Any, Any]:
    """The loaders (train, valid, test) that all runs of ``model`` on ``dataset`` have."""
    run = Run(model, dataset, "dense", 1.0, SEEDS[0], 0.001, 0.0, 1)
    with tempfile.TemporaryDirectory() as folder:
        return load(_config(run, data_path, folder))


def dense_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """The state of a model whose sparse weights have all entries, as RecBole's own model would have it."""
    weights = sparse_weights(model)
    parts = {f"{name}.{part}" for name in weights for part in ("values", "columns", "row_offsets")}
    others = {name: tensor for name, tensor in model.state_dict().items() if name not in parts}
    return {**others, **{name: weight.dense().detach() for name, weight in weights.items()}}


def _config(run: Run, data_path: str, folder: str) -> Config:
    of_run = {name: getattr(run, name) for name in ("epochs", "seed", "learning_rate", "weight_decay", "density")}
    places = {"checkpoint_dir": folder, "data_path": ensure_dataset(run.dataset, data_path, "dataset")}
    config = make_config(run.model, run.dataset, {**options_of(run.model, run.dataset), **of_run, **places})
    # it names its fields in the config that it is made from, where the model looks for them
    construct_transform(config)
    return config
