"""How large the largest tensor is that a step over all rows makes."""

import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from recbole_dsl.sparse.modules import SparseEmbedding
from recbole_dsl.sparse.softmax import cross_entropy as tables
from recbole_dsl.sparse.weight import SparseWeight

ROWS, COLUMNS, N = 30_000, 64, 128


class Largest(TorchDispatchMode):
    """The most entries of a tensor that was made."""

    entries = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        of_inputs = {t.untyped_storage().data_ptr() for t in tree_leaves((args, kwargs)) if torch.is_tensor(t)}
        for tensor in tree_leaves(out):
            if torch.is_tensor(tensor) and tensor.untyped_storage().data_ptr() not in of_inputs:
                self.entries = max(self.entries, tensor.numel())
        return out


def embedding(rows, columns):
    dense = torch.randn(rows, columns, generator=torch.Generator().manual_seed(0))
    return SparseEmbedding(SparseWeight.of(dense, torch.arange(0, rows * columns, 10)))


@pytest.mark.parametrize("collects", [False, True])
@pytest.mark.parametrize("compiles", [False, True])
def test_neither_the_table_nor_its_scores_are_made(collects, compiles, monkeypatch):
    monkeypatch.setattr(tables, "_WORTH_COMPILING", 0 if compiles else 2**62)
    items, h = embedding(ROWS, COLUMNS), torch.randn(N, COLUMNS, requires_grad=True)
    if collects:
        items._modules["weight"].reader.gradient_sink = lambda ids, gradient: None
    with Largest() as largest:
        F.cross_entropy(h @ items.weight.t() / 2, torch.arange(N)).backward()
    # the gradient of the alive entries, and what is larger than a chunk
    assert largest.entries <= max(items._modules["weight"].nnz, 2**19) < ROWS * COLUMNS / 2


@pytest.mark.parametrize("collects", [False, True])
def test_no_layer_of_an_autoencoder_is_made(collects):
    encoder, decoder = embedding(COLUMNS, ROWS), embedding(ROWS, COLUMNS)
    ratings = torch.zeros(N, ROWS)
    ratings[torch.arange(N), torch.arange(N) * 7 % 50] = 1
    if collects:
        for layer in (encoder, decoder):
            layer._modules["weight"].reader.gradient_sink = lambda ids, gradient: None
    with Largest() as largest:
        scores = F.linear(torch.tanh(F.linear(ratings, encoder.weight)), decoder.weight, torch.zeros(ROWS))
        (-(F.log_softmax(scores, 1) * ratings).sum(1).mean()).backward()
    # collecting goes block by block of rows
    assert largest.entries <= (2**20 if collects else 2**19) < ROWS * COLUMNS
