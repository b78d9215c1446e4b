"""What `benchmarks.memory` measures, one function each, to be called in a process of its own."""

import os
import tempfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from recbole.trainer import Trainer
from torch import Tensor

from benchmarks.peak import peak_bytes
from benchmarks.power_law import popular_ranks
from benchmarks.sides import build, make_config, make_trainer
from recbole_dsl.sparse.modules import sparse_weights

# so that topology updates are in time, and the measured one is at the start of the schedule
_TOTAL_STEPS = 100_000


class Sizes:
    """As much of a RecBole dataset as BPR's constructor asks for: the number of users and of items."""

    def __init__(self, users: int, items: int):
        self._sizes = {"user_id": users, "item_id": items}

    def num(self, field: str) -> int:
        return self._sizes[field]


def live_bytes(side: str, rows: int, options: Mapping[str, Any]) -> dict[str, int]:
    """Bytes of every tensor that training keeps, after three steps: kind -> bytes, and "total".

    Gradients are those between a backward pass and the next, the record is that of what was ever alive;
    the masks of masked dense weights are indices.
    """
    trainer, random = _trainer(side, rows, options), np.random.default_rng(0)
    for _ in range(3):
        _step(trainer, rows, random)
    parameters = list(trainer.model.parameters())
    weights = sparse_weights(trainer.model).values()
    masks = getattr(trainer, "masks", {}).values()
    state = [t for s in trainer.optimizer.state.values() for t in s.values() if isinstance(t, Tensor)]
    kinds = {
        "weights": sum(map(_bytes, parameters)),
        "gradients": sum(_bytes(p.grad) for p in parameters if p.grad is not None),
        "moments": sum(map(_bytes, state)),
        "indices": sum(weight.index_bytes for weight in weights) + sum(map(_bytes, masks)),
    }
    record = trainer.topology.state_dict()["explored"].values() if weights else ()
    kinds["record of explored weights"] = sum(map(_bytes, record))
    return {**kinds, "total": sum(kinds.values())}


def update_peak(
    rows: int, grow_window: int, grow_memory: float | None, options: Mapping[str, Any]
) -> dict[str, int]:
    """Bytes beyond what training holds between steps, at the peak of a "step" and of an "update".

    The update counts from the first step that collects gradients for it. "buffer" is the collected gradients
    alone, as the topology counts them.
    """
    # one step to make the moments, one to measure; the third begins to collect when it ends
    chosen = {"update_interval": grow_window + 3, "grow_window": grow_window, "grow_memory": grow_memory}
    trainer, random = _trainer("ours", rows, {**options, **chosen}), np.random.default_rng(0)
    _step(trainer, rows, random)
    step = peak_bytes(lambda: _step(trainer, rows, random))
    update = peak_bytes(lambda: [_step(trainer, rows, random) for _ in range(grow_window + 1)])
    if len(trainer.topology_updates) != 1:
        raise RuntimeError(f"{len(trainer.topology_updates)} topology updates were measured, not one")
    return {"step": step, "update": update, "buffer": trainer.topology.growth_peak_bytes}


def checkpoint_bytes(side: str, rows: int, options: Mapping[str, Any]) -> dict[str, int]:
    """Size of the file that the trainer saves after a step: "whole", and "weights" without what training needs."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = _trainer(side, rows, {**options, "checkpoint_dir": folder})
        _step(trainer, rows, np.random.default_rng(0))
        trainer._save_checkpoint(0, verbose=False)
        whole = os.path.getsize(trainer.saved_model_file)
        state = torch.load(trainer.saved_model_file, weights_only=False)
        for name in ("optimizer", "optimizers", "topology", "random_state"):
            state.pop(name, None)
        torch.save(state, trainer.saved_model_file)
        return {"whole": whole, "weights": os.path.getsize(trainer.saved_model_file)}


def build_peak(rows: int, options: Mapping[str, Any]) -> dict[str, int]:
    """Bytes at the peak of building a sparse model, of the model itself, and of its dense form."""
    config, sizes = make_config("BPR", "sizes", options), _sizes(rows)
    # the first deferred tensor makes PyTorch import its compiler
    build(config, _sizes(50_000))
    built = []
    peak = peak_bytes(lambda: built.append(build(config, sizes)))
    weights = sparse_weights(built[0]).values()
    own = sum(_bytes(weight.values) + weight.index_bytes for weight in weights)
    dense = sum(weight.numel * weight.values.element_size() for weight in weights)
    return {"peak": peak, "model": own, "dense": dense}


def _trainer(side: str, rows: int, options: Mapping[str, Any]) -> Trainer:
    return make_trainer(side, make_config("BPR", "sizes", options), _sizes(rows), _TOTAL_STEPS)


def _sizes(rows: int) -> Sizes:
    return Sizes(rows // 2, rows - rows // 2)


def _step(trainer: Trainer, rows: int, random: np.random.Generator) -> None:
    users, batch = rows // 2, trainer.config["train_batch_size"]
    items = rows - users
    interaction = {
        "user_id": popular_ranks(random, users, batch),
        "item_id": popular_ranks(random, items, batch),
        "neg_item_id": random.integers(items, size=batch),
    }
    trainer.optimizer.zero_grad()
    trainer.model.calculate_loss({name: torch.from_numpy(ids) for name, ids in interaction.items()}).backward()
    trainer.optimizer.step()


def _bytes(tensor: Tensor) -> int:
    if tensor.layout == torch.sparse_coo:
        return _bytes(tensor._indices()) + _bytes(tensor._values())
    return tensor.numel() * tensor.element_size()
