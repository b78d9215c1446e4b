"""How much dropout a sparse model trains with."""

import pytest
from torch import nn

from recbole_dsl import DSLTrainer
from tests.running import prepare

NEXT = {"load_col": None, "train_neg_sample_args": None}
SEQUENTIAL = {**NEXT, "n_layers": 1, "n_heads": 1}


def dropouts(model):
    return sorted({module.p for module in model.modules() if isinstance(module, nn.Dropout)})


@pytest.mark.parametrize(
    "name, changes, expected",
    [
        ("SASRec", {**SEQUENTIAL, "density": 0.1}, 0.5 * 0.1**0.4),
        ("SASRec", {**SEQUENTIAL, "density": 1.0}, 0.5),
        ("GRU4Rec", {**NEXT, "density": 0.1, "dropout_prob": 0.3}, 0.3),
        ("GRU4Rec", {**NEXT, "density": 0.1, "dropout_prob": 0.3, "dropout_factor": 0.5}, 0.15),
        ("SASRec", {**SEQUENTIAL, "dropout_factor": 1}, 0.5),
        ("SASRec", {**SEQUENTIAL, "dropout_factor": 0}, 0.0),
        ("NeuMF", {"dropout_prob": 0.3}, 0.3),
        ("NeuMF", {"dropout_prob": 0.3, "dropout_factor": 0.5}, 0.15),
    ],
)
def test_dropout_falls_with_the_density_in_models_of_the_next_item_with_several_layers_of_it(
    options, name, changes, expected
):
    config, model, *_ = prepare(name, {**options, **changes})
    DSLTrainer(config, model)
    assert dropouts(model) == pytest.approx([expected], rel=1e-3)


def test_the_density_that_counts_is_the_one_that_was_reached(options, caplog):
    config, model, *_ = prepare("SASRec", {**options, **SEQUENTIAL, "weights": 100})
    with caplog.at_level("INFO"):
        trainer = DSLTrainer(config, model)
    assert dropouts(model) == pytest.approx([0.5 * trainer.sparsity.density**0.4])
    assert "dropout from 0.5 to" in caplog.text and trainer.sparsity.dropout


def test_a_second_trainer_of_a_model_leaves_its_dropout(options):
    config, model, *_ = prepare("SASRec", {**options, **SEQUENTIAL})
    DSLTrainer(config, model)
    before = dropouts(model)
    DSLTrainer(config, model)
    assert dropouts(model) == before
