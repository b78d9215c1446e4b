"""Sparse training against an independent simulation: dense weights, a mask, a masked gradient."""

import pytest
import torch
from torch import nn

from recbole_dsl import DSLConfig, sparsify
from recbole_dsl.topology.engine import DynamicTopology
from recbole_dsl.topology.schedule import update_ratio
from tests.toy import Toy, toy_batch, toy_loss

OPTIMIZERS = {
    "Adam": lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=1e-3),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=1e-2),
    "SGD": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9),
    "Adagrad": lambda p: torch.optim.Adagrad(p, lr=0.05),
    "RMSprop": lambda p: torch.optim.RMSprop(p, lr=0.005, momentum=0.5),
}


class MaskedReference:
    """A dense model whose inactive weights are held at zero, with RigL's update written anew."""

    def __init__(self, model: nn.Module, masks: dict, optimizer, config: DSLConfig, total_steps: int):
        self.model, self.masks, self.config, self.total_steps = model, masks, config, total_steps
        self.parameters = dict(model.named_parameters())
        with torch.no_grad():
            for name, mask in masks.items():
                self.parameters[name] *= mask
        self.optimizer = optimizer(model.parameters())
        self.steps = 0

    def train_step(self, batch):
        self.optimizer.zero_grad()
        toy_loss(self.model, batch).backward()
        dense_gradients = {name: self.parameters[name].grad.clone() for name in self.masks}
        for name, mask in self.masks.items():
            self.parameters[name].grad *= mask
        self.optimizer.step()
        self.steps += 1
        if self.steps % self.config.update_interval == 0 and self.steps < self.total_steps:
            ratio = update_ratio(self.config.schedule, self.config.update_ratio, self.steps / self.total_steps)
            for name, gradient in dense_gradients.items():
                self.update(name, gradient, ratio)

    @torch.no_grad()
    def update(self, name, gradient, ratio):
        weight, mask = self.parameters[name], self.masks[name].view(-1)
        n = round(ratio * int(mask.sum()))
        flat = weight.view(-1)
        order = flat.abs().masked_fill(~mask, float("inf")).argsort()
        blocked = mask.clone()
        if name == "item.weight":
            blocked.view_as(weight)[0] = True
        pruned = order[:n]
        grown = gradient.view(-1).abs().masked_fill(blocked, -1).argsort(descending=True)[:n]
        mask[pruned], mask[grown] = False, True
        for changed in (pruned, grown):
            flat[changed] = 0
            for state in self.optimizer.state[weight].values():
                if state.shape == weight.shape:
                    state.view(-1)[changed] = 0


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_equals_the_masked_dense_reference(name):
    torch.manual_seed(3)
    sparse, dense = Toy(), Toy()
    dense.load_state_dict(sparse.state_dict())
    config = DSLConfig(
        density=0.3,
        sparse_init="uniform",
        update_interval=5,
        update_ratio=0.4,
        grow_window=1,
        stop_fraction=1,
    )
    report = sparsify(sparse, config)
    masks = {name: weight.dense().detach() != 0 for name, weight in report.weights.items()}
    assert sum(int(mask.sum()) for mask in masks.values()) == report.nnz
    reference = MaskedReference(dense, masks, OPTIMIZERS[name], config, total_steps=30)
    optimizer = OPTIMIZERS[name](sparse.parameters())
    topology = DynamicTopology(report.weights, config, total_steps=30)
    topology.attach(optimizer)
    generator = torch.Generator().manual_seed(0)
    for _ in range(30):
        batch = toy_batch(generator)
        optimizer.zero_grad()
        toy_loss(sparse, batch).backward()
        optimizer.step()
        reference.train_step(batch)
        for name, weight in report.weights.items():
            assert torch.equal(weight.alive_in(0, weight.n_rows), masks[name].view(weight.n_rows, -1))
            assert (weight.dense() - reference.parameters[name]).abs().max() < 1e-6
        assert (sparse.layer.bias - dense.layer.bias).abs().max() < 1e-6
    assert [update.step for update in topology.updates] == [5, 10, 15, 20, 25]
    assert all(update.exchanged > 0 for update in topology.updates)
