"""Measuring a model leaves it as it was, whatever it keeps when it predicts."""

import random

import numpy as np
import pytest
import torch
from torch import nn

from recbole_dsl import DSLConfig, sparsify
from recbole_dsl.measure import untouched
from recbole_dsl.measure.flops import forward_flops
from recbole_dsl.measure.untouched import NotToBeCopied, throwaway_copy


class Inner(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(4, momentum=0.5)
        self.register_buffer("sums", torch.zeros(4))
        self.kept = None

    def forward(self, x):
        self.norm.train()
        self.kept = x
        self.sums += x.sum(0)
        self.sums = self.sums * 2
        return self.norm(x)


class Hoarder(nn.Module):
    """Keeps what it sees in every way that we could think of."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(20, 4)
        self.layer = nn.Linear(4, 4)
        self.inner = Inner()
        self.seen, self.calls, self.scores = [], 0, np.zeros(2)
        self.by_name = {"deep": [torch.zeros(4)]}
        self.generator = torch.Generator().manual_seed(1)
        self.of_last_step = self.table(torch.tensor([1])) * 2
        self.inner.register_forward_hook(self.note)
        self.act = lambda x: torch.relu(x)

    def note(self, module, args, output):
        self.seen.append(output)

    def forward(self, ids):
        self.calls += 1
        out = self.act(self.inner(self.layer(self.table(ids))))
        self.seen.append(out)
        self.scores[0] += random.random() + np.random.rand()
        self.by_name["deep"][0].add_(out[0])
        self.noise = torch.rand(2, generator=self.generator)
        with torch.no_grad():
            self.layer.bias.add_(torch.rand(4))
        self.layer.requires_grad_(False)
        self.new = nn.Linear(2, 2)
        return out


def state(model):
    texts = {name: repr(vars(module)) for name, module in model.named_modules()}
    tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    draws = repr((torch.get_rng_state().sum(), random.getstate(), np.random.get_state()[1].tolist()))
    return texts, tensors, draws, model.generator.get_state()


def test_nothing_that_a_model_keeps_is_changed():
    model = Hoarder()
    sparsify(model, DSLConfig(density=0.5))
    model.layer.eval()
    ids = torch.arange(6)
    before = state(model)
    assert all(figure > 0 for figure in forward_flops(model, lambda copied: copied(ids)))
    after = state(model)
    assert after[0] == before[0] and after[2] == before[2] and torch.equal(after[3], before[3])
    assert after[1].keys() == before[1].keys()
    assert all(torch.equal(after[1][name], before[1][name]) for name in before[1])
    assert model.training and not model.layer.training


def test_what_a_copy_would_share_is_not_measured():
    model = nn.Sequential(nn.Embedding(20, 4))
    kept = []
    model[0].register_forward_hook(lambda module, args, output: kept.append(output))
    with pytest.raises(NotToBeCopied, match="reaches"):
        forward_flops(model, lambda copied: copied(torch.arange(2)))
    assert not kept


def test_a_model_of_much_that_is_not_trained_is_not_copied(monkeypatch):
    monkeypatch.setattr(untouched, "_SMALL", 1000)
    model = nn.Sequential(nn.Embedding(20, 4), nn.Embedding.from_pretrained(torch.rand(1000, 4)))
    with pytest.raises(NotToBeCopied, match="memory"):
        throwaway_copy(model)
    model[1].weight.requires_grad = True
    assert throwaway_copy(model) is not model
