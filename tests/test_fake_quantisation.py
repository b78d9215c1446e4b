"""Training for int4, of the benchmarks: what the loss is of, and what the optimizer steps."""

import pytest
import torch

from benchmarks.fake_quantisation import quantised, train_for
from benchmarks.power_law import ensure_power_law
from benchmarks.sides import FirstBatches, load, make_config, make_trainer

OPTIONS = {"train_batch_size": 256, "embedding_size": 16, "density": 0.2, "update_interval": 3, "epochs": 1}


@pytest.fixture
def loaders_and_trainer(tmp_path):
    """(train_data, valid_data, trainer) of BPR with SGD, whose topology changes every third step."""
    data = {"data_path": str(tmp_path), "learner": "sgd", "learning_rate": 0.1}
    config = make_config("BPR", ensure_power_law(str(tmp_path), 200, 300, 3000), {**OPTIONS, **data})
    train_data, valid_data, _ = load(config)
    trainer = make_trainer("ours", config, train_data._dataset, total_steps=100)
    trainer.fit(train_data, valid_data, verbose=False, show_progress=False)
    trainer.topology.total_steps = 100
    return train_data, valid_data, trainer


def test_the_loss_is_that_of_the_rounded_model_and_exact_weights_are_stepped(loaders_and_trainer):
    train_data, _, trainer = loaders_and_trainer
    weights, exact_loss = list(trainer.sparsity.weights.values()), trainer.model.calculate_loss
    train_for(trainer, "int4")
    before, changes = None, 0
    for step, batch in enumerate(FirstBatches(train_data, 10)):
        topologies = [weight.topology for weight in weights]
        exact = [weight.values.detach().clone() for weight in weights]
        with quantised(trainer, "int4"):
            expected = exact_loss(batch).item()
        assert exact_loss(batch).item() != expected
        trainer.optimizer.zero_grad()
        loss = trainer.model.calculate_loss(batch)
        # otherwise what rounding adds is that of an earlier step
        is_new = step % 4 == 0 or topologies != before
        assert loss.item() == (expected if is_new else pytest.approx(expected, rel=1e-3))
        loss.backward()
        stepped = [values - 0.1 * weight.values.grad for values, weight in zip(exact, weights)]
        trainer.optimizer.step()
        if [weight.topology for weight in weights] == topologies:
            torch.testing.assert_close([weight.values.detach() for weight in weights], stepped)
        else:
            changes += 1
        before = topologies
    assert changes > 2


def test_the_rounded_model_is_validated(loaders_and_trainer):
    _, valid_data, trainer = loaders_and_trainer
    exact = trainer.evaluate(valid_data, load_best_model=False)
    with quantised(trainer, "int4"):
        expected = trainer.evaluate(valid_data, load_best_model=False)
    train_for(trainer, "int4")
    assert trainer._valid_epoch(valid_data)[1] == expected != exact
    assert trainer.evaluate(valid_data, load_best_model=False) == exact
