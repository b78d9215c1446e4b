"""What models do with the dense view of a large weight: the same as with the dense tensor, made or not."""

import logging
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from recbole_dsl.sparse import lazy_tensor
from recbole_dsl.sparse.lazy_scores import LazyScores
from recbole_dsl.sparse.lazy_table import LazyTable
from recbole_dsl.sparse.modules import SparseEmbedding
from recbole_dsl.sparse.weight import SparseWeight

ROWS, COLUMNS, N = 1500, 48, 6


@pytest.fixture
def embedding():
    generator = torch.Generator().manual_seed(0)
    dense = torch.randn(ROWS, COLUMNS, generator=generator, dtype=torch.float64)
    alive = torch.rand(ROWS, COLUMNS, generator=generator) < 0.1
    alive[::7] = False
    return SparseEmbedding(SparseWeight.of(dense, alive.view(-1).nonzero().view(-1)))


@pytest.fixture
def made(caplog):
    """The functions for which something was made dense."""
    lazy_tensor._say_that_made.cache_clear()
    with caplog.at_level(logging.DEBUG, logger=lazy_tensor.__name__):
        yield lambda: {record.message.partition(":")[0] for record in caplog.records}


def vectors(*shape):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(*shape, COLUMNS, generator=generator, dtype=torch.float64).requires_grad_()


def targets(n, rows=ROWS):
    return torch.randint(rows, (n,), generator=torch.Generator().manual_seed(2))


def scores_of(form, w, h):
    return {
        "transpose": lambda: torch.matmul(h, w.transpose(0, 1)),
        "t": lambda: torch.mm(h, w.t()),
        "T": lambda: h @ w.T,
        "permute": lambda: h.matmul(w.permute(1, 0)),
        "linear": lambda: F.linear(h, w),
        "mT": lambda: h.mm(w.mT),
    }[form]()


def bias(rows=ROWS):
    return torch.linspace(-1, 1, rows, dtype=torch.float64)


LOSSES = {
    **{
        f"scores by {form}": partial(lambda form, w, h: F.cross_entropy(scores_of(form, w, h), targets(N)), form)
        for form in ("transpose", "t", "T", "permute", "linear", "mT")
    },
    "temperature": lambda w, h: F.cross_entropy(h @ w.t() / 0.07, targets(N)),
    "temperature as a tensor": lambda w, h: F.cross_entropy(h @ w.t() / h[0, 0].exp(), targets(N)),
    "scale": lambda w, h: F.cross_entropy(3 * (h @ w.t()), targets(N)),
    "bias": lambda w, h: F.cross_entropy(F.linear(h, w, bias()), targets(N)),
    "bias added, then a temperature": lambda w, h: F.cross_entropy((bias() + h @ w.t()) / 2, targets(N)),
    "first rows": lambda w, h: F.cross_entropy(h @ w[:700].t(), targets(N, 700)),
    "all but the first": lambda w, h: F.cross_entropy(h @ w[1:, :].t() + bias(ROWS - 1), targets(N, ROWS - 1)),
    "sequences": lambda w, h: (
        F.cross_entropy((h.view(2, 3, -1) @ w.t()).view(-1, w.size(0)), targets(N), reduction="none")
        * torch.tensor([1, 0, 1, 1, 0, 0])
    ).sum(),
    "log-softmax": lambda w, h: nn.NLLLoss()(F.log_softmax(h @ w.t(), dim=1), targets(N)),
    "options": lambda w, h: nn.CrossEntropyLoss(
        weight=bias().abs(), ignore_index=int(targets(N)[0]), reduction="sum", label_smoothing=0.1
    )(h @ w.t(), targets(N)),
    "shares": lambda w, h: -(F.log_softmax(h @ w.t(), 1) * F.one_hot(targets(N), ROWS).double()).sum(1).mean(),
    "normalised rows": lambda w, h: F.cross_entropy(h @ F.normalize(w, dim=-1).t(), targets(N)),
    "relu": lambda w, h: F.cross_entropy(h @ F.relu(w).t(), targets(N)),
    "dropout in evaluation": lambda w, h: F.cross_entropy(h @ F.dropout(w, 0.5, False).t(), targets(N)),
    "norms": lambda w, h: w.norm(2) + torch.norm(w, p=1) + w.norm() * h.sum(),
    "rows of ids": lambda w, h: (w[targets(N), :] * h).sum() + (F.embedding(targets(N), w) * w[targets(N)]).sum(),
}
FALLS_BACK = {
    "an activation": lambda w, h: torch.tanh(h @ w.t()).sum(),
    "a reading of the scores first": lambda w, h: F.cross_entropy(s := h @ w.t(), targets(N)) + s.max(),
    "probabilities": lambda w, h: F.cross_entropy(h @ w.t(), torch.full((N, ROWS), 1 / ROWS).double()),
    "written into": lambda w, h: F.cross_entropy((h @ w.t()).index_fill_(1, torch.tensor([0]), -9.0), targets(N)),
    "softmax": lambda w, h: (h @ w.t()).softmax(-1)[:, 3].sum(),
    "a mean of rows": lambda w, h: (w.mean(0) * h).sum(),
    "joined": lambda w, h: (torch.cat([w, w * 2]) @ h.t()).logsumexp(0).sum(),
    "negative ids": lambda w, h: (w[torch.tensor([-1, 2])] * h[:2]).sum(),
    "every second row": lambda w, h: (w[::2] @ h.t()).square().sum(),
    "one vector": lambda w, h: (h[0] @ w.t()).square().sum(),
}


@pytest.mark.parametrize("name", [*LOSSES, *FALLS_BACK])
def test_gives_what_the_dense_tensor_gives(embedding, name, made):
    loss_of = {**LOSSES, **FALLS_BACK}[name]
    values, h = embedding._modules["weight"].values, vectors(N)
    assert isinstance(embedding.weight, LazyTable)
    loss, wanted = loss_of(embedding.weight, h), loss_of(embedding._modules["weight"].dense(), h)
    assert torch.allclose(loss, wanted, rtol=1e-10)
    for ours, dense in zip(
        torch.autograd.grad(loss, [values, h], allow_unused=True),
        torch.autograd.grad(wanted, [values, h], allow_unused=True),
    ):
        assert (ours is None and dense is None) or torch.allclose(ours, dense, rtol=1e-9, atol=1e-12)
    assert bool(made()) == (name in FALLS_BACK)


def collector():
    sums = torch.zeros(ROWS, COLUMNS, dtype=torch.float64)

    def add(ids, gradient):
        sums.index_add_(0, torch.arange(ROWS) if ids is None else ids, gradient)

    return add, sums


def test_gradients_of_what_is_not_alive(embedding):
    weight, h = embedding._modules["weight"], vectors(N)
    for name, loss_of in LOSSES.items():
        collected = {}
        for kind in ("ours", "dense"):
            weight.reader.gradient_sink, sums = collector()
            view = embedding.weight if kind == "ours" else weight.dense()
            loss_of(view, h).backward()
            collected[kind] = sums
        weight.reader.gradient_sink = None
        # an alive entry's own gradient comes from elsewhere
        alive = weight.alive_in(0, ROWS)
        difference = (collected["ours"] - collected["dense"]).masked_fill(alive, 0)
        assert difference.abs().max() <= 1e-12, name


def test_dropout_of_the_table_keeps_the_mean(embedding, made):
    torch.manual_seed(0)
    h = vectors(N)
    weight = embedding.weight
    losses = torch.stack([F.dropout(weight, 0.5).norm(1) for _ in range(50)])
    assert abs(losses.mean() / weight.norm(1) - 1) < 0.01
    F.cross_entropy(h @ F.dropout(weight, 0.5).t(), targets(N)).backward()
    assert not made()


def test_scores_are_as_they_were_written(embedding):
    scores = vectors(N) @ embedding.weight.t()
    other = scores.view(2, 3, ROWS)
    scores[:, 0] = 7.0
    assert isinstance(scores, LazyScores) and (other[..., 0] == 7).all()
    wanted = F.cross_entropy(torch.tensor(scores.tolist(), dtype=torch.float64), targets(N))
    assert torch.allclose(F.cross_entropy(scores, targets(N)), wanted)
    assert torch.allclose(F.cross_entropy(other.view(N, ROWS), targets(N)), wanted)


def test_scores_that_were_looked_at_without_a_gradient_keep_theirs(embedding):
    scores = vectors(N) @ embedding.weight.t()
    with torch.no_grad():
        scores.argmax(-1)
    F.cross_entropy(scores, targets(N)).backward()
    assert embedding._modules["weight"].values.grad.abs().max() > 0


def test_is_known_by_what_a_tensor_is_known_by(embedding, made):
    view = embedding.weight
    assert isinstance(view, nn.Parameter) and view.shape == view.size() == (ROWS, COLUMNS)
    assert view.requires_grad and view.dim() == 2 and len(view) == ROWS and view.numel() == ROWS * COLUMNS
    assert (view.dtype, view.device.type) == (torch.float64, "cpu") and view.t().shape == (COLUMNS, ROWS)
    scores = vectors(2, 3) @ view.t()
    assert scores.shape == (2, 3, ROWS) and scores.requires_grad
    assert not made()


def test_autocast_is_as_exact_as_the_table():
    embedding = SparseEmbedding(SparseWeight.of(torch.randn(ROWS, COLUMNS), torch.arange(0, ROWS * COLUMNS, 11)))
    h = vectors(N).float()
    with torch.autocast("cpu", torch.bfloat16):
        loss = F.cross_entropy(h.bfloat16() @ embedding.weight.t(), targets(N))
    wanted = F.cross_entropy(h.bfloat16().float() @ embedding._modules["weight"].dense().t(), targets(N))
    assert loss.dtype == torch.float32 and torch.allclose(loss, wanted)
