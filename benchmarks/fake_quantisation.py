"""Fake quantisation: models scored, or trained, with their weights as an artifact of few bits holds them."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import torch
from recbole.trainer import Trainer
from torch import Tensor

from recbole_dsl.network_scoring.stored_weights import all_entries, can_be_packed
from recbole_dsl.serving.csr import CSR
from recbole_dsl.serving.packed_table import PackedTable

# steps between two quantisations, each of which takes longer than a step
_INTERVAL = 4


@contextmanager
def quantised(trainer: Trainer, values: str) -> Iterator[tuple[int, int]]:
    """The model with its sparse weights and dense matrices as an artifact would hold them; yields bytes and rows.

    The bytes are those of all weights, the rows those of sparse ones.
    """
    n_rows = sum(weight.n_rows for weight in trainer.sparsity.weights.values())
    with _rounded(trainer, values) as n_added:
        yield 4 * trainer.cost.dense_tensors.sparse + n_added, n_rows


def train_for(trainer: Trainer, values: str) -> None:
    """Let ``trainer`` train and validate its model with weights as an artifact of ``values`` would hold them.

    Losses and gradients are those of quantised weights, and the optimizer steps the float32 ones with them, as if
    rounding had the gradient 1: a straight-through estimator (Jacob et al. 2018, arXiv 1712.05877). What rounding
    adds is found anew every fourth step, and where the topology has changed.
    """
    model = trainer.model
    usual_loss, usual_validation = model.calculate_loss, trainer._valid_epoch
    # (weights, what rounding adds) and (weights, their float32 values while they are rounded)
    added: list[tuple[Tensor, Tensor]] = []
    exact: list[tuple[Tensor, Tensor]] = []
    topologies: list[Any] = []
    optimizer, n_steps = None, 0

    def restore(*_: Any) -> None:
        nonlocal exact
        _replace(exact)
        exact = []

    @wraps(usual_loss)
    def calculate_loss(*args: Any) -> Any:
        nonlocal added, exact, topologies, optimizer, n_steps
        if trainer.optimizer is not optimizer:
            optimizer = trainer.optimizer
            optimizer.register_step_pre_hook(restore)
        now = [weight.topology for weight in trainer.sparsity.weights.values()]
        if n_steps % _INTERVAL == 0 or now != topologies:
            added = [(tensor, stored - tensor) for tensor, stored, _ in _as_stored(trainer, values)]
            topologies = now
        n_steps += 1
        exact = _replace([(tensor, tensor + error) for tensor, error in added])
        return usual_loss(*args)

    @wraps(usual_validation)
    def valid_epoch(*args: Any, **kwargs: Any) -> Any:
        with _rounded(trainer, values):
            return usual_validation(*args, **kwargs)

    model.calculate_loss, trainer._valid_epoch = calculate_loss, valid_epoch


@contextmanager
def _rounded(trainer: Trainer, values: str) -> Iterator[int]:
    """The model with its weights as stored; yields what they add to the bytes of dense tensors."""
    all_stored = list(_as_stored(trainer, values))
    exact = _replace([(tensor, stored) for tensor, stored, _ in all_stored])
    try:
        yield sum(n_added for *_, n_added in all_stored)
    finally:
        _replace(exact)


def _replace(pairs: list[tuple[Tensor, Tensor]]) -> list[tuple[Tensor, Tensor]]:
    """Give the first of each pair the values of the second; returns pairs that undo it."""
    before = [(tensor, tensor.clone()) for tensor, _ in pairs]
    for tensor, values in pairs:
        tensor.copy_(values)
    return before


def _as_stored(trainer: Trainer, values: str) -> Iterator[tuple[Tensor, Tensor, int]]:
    """(weights, the same as stored, what they add to the bytes of dense tensors) of all that is stored so."""
    for weight in trainer.sparsity.weights.values():
        parts = (part.detach().numpy() for part in (weight.row_offsets, weight.columns, weight.values))
        table = PackedTable.of(CSR(*parts, weight.n_columns), values)
        yield weight.values.detach(), _stored_values(table), table.nbytes
    for parameter in filter(can_be_packed, trainer.model.parameters()):
        dense = parameter.detach()
        table = PackedTable.of(all_entries(dense), values)
        yield dense, _stored_values(table).view_as(dense), table.nbytes - 4 * dense.numel()


def _stored_values(table: PackedTable) -> Tensor:
    return torch.from_numpy(table.rows(0, table.n_rows).values)
