"""RecBole's models with a softmax over all items train as dense ones whose other weights are zero."""

import copy
import logging
import re

import pytest
import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.utils import get_model, init_seed

from benchmarks.model_cases import CASES, model_of
from recbole_dsl import DSLTrainer, densify
from recbole_dsl.sparse import lazy_tensor, weight
from recbole_dsl.sparse.modules import sparse_weights
from tests.training.test_models import options_of

# with their default, the cross-entropy over all items
SEQUENTIAL = [
    case
    for case in CASES["sequential"]
    if not case.endswith(("-BPR", "-max", "-sum", "-pretrain"))
    and model_of(case) not in ("DIN", "DIEN", "FPMC", "TransRec", "RepeatNet")
]
AUTOENCODERS = ["MultiVAE", "MultiDAE", "MacridVAE", "CDAE", "RaCT", "RecVAE"]
# whose loss takes the scores of all items themselves
OTHER_LOSSES = {"GRU4RecCPR", "SASRecCPR", "MacridVAE", "CDAE"}


def prepared(family, case, data_path):
    options = {**options_of(family, case, data_path), "density": 0.1, "dropout_prob": 0.0, "item_dropout": 0.0}
    config = Config(config_dict=options)
    init_seed(config["seed"], config["reproducibility"])
    train_data, _, _ = data_preparation(config, create_dataset(config))
    init_seed(config["seed"], config["reproducibility"])
    if case == "S3Rec-finetune":
        # it would look for a file of the stage before
        config["train_stage"] = "pretrain"
    model = get_model(config["model"])(config, train_data._dataset)
    if case == "S3Rec-finetune":
        model.train_stage, model.loss_fct = "finetune", torch.nn.CrossEntropyLoss()
    DSLTrainer.prepare(config, model)
    return model, next(iter(train_data))


def gradients(model, batch):
    init_seed(1, True)
    extra = (True,) if type(model).__name__ == "RecVAE" else ()
    losses = model.calculate_loss(batch, *extra)
    loss = sum(losses) if isinstance(losses, tuple) else losses
    loss.backward()
    return loss.item()


@pytest.mark.parametrize(
    "family, case",
    [("sequential", case) for case in SEQUENTIAL] + [("general", case) for case in AUTOENCODERS],
)
def test_loss_and_gradients_are_those_of_the_dense_model(family, case, data_path, monkeypatch, caplog):
    # as if its tables were large
    monkeypatch.setattr(weight, "LAZY_FROM", 0)
    lazy_tensor._say_that_made.cache_clear()
    model, batch = prepared(family, case, data_path)
    dense = densify(copy.deepcopy(model))
    with caplog.at_level(logging.DEBUG, logger=lazy_tensor.__name__):
        loss = gradients(model, batch)
    items = {str(model.n_items + more) for more in (0, 1)}
    of_all_items = [r.message for r in caplog.records if items & set(re.findall(r"\d+", r.message))]
    assert bool(of_all_items) == (case in OTHER_LOSSES)
    assert loss == pytest.approx(gradients(dense, batch), rel=1e-5)
    of_dense = dict(dense.named_parameters())
    for name, sparse in sparse_weights(model).items():
        if not sparse.values.requires_grad or of_dense[name].grad is None:
            continue
        wanted = of_dense[name].grad.reshape(-1)[sparse.positions()]
        error = (sparse.values.grad - wanted).abs().max()
        assert error <= 1e-5 * wanted.abs().max() + 1e-9, name
