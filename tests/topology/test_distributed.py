"""Two processes with half of each batch make the topology that one process makes with all of it."""

import os

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn.parallel import DistributedDataParallel

from recbole_dsl import DSLConfig, DSLError, sparsify
from recbole_dsl.topology.engine import DynamicTopology
from tests.toy import Toy, toy_batch, toy_loss


def _train(grow, share, seed=2020):
    """Positions of every tensor after some updates, trained on ``share`` of each batch."""
    torch.manual_seed(0)
    model = Toy()
    config = DSLConfig(
        density=0.3,
        update_interval=3,
        update_ratio=0.5,
        stop_fraction=1,
        grow=grow,
        grow_window=2,
        grow_memory=0.7,
        prune="taylor",
        seed=seed,
    )
    report = sparsify(model, config)
    trained = model
    if dist.is_initialized():
        trained = DistributedDataParallel(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    topology = DynamicTopology(report.weights, config, total_steps=16)
    topology.attach(optimizer)
    generator = torch.Generator().manual_seed(0)
    for _ in range(16):
        batch = tuple(t[share] for t in toy_batch(generator))
        optimizer.zero_grad()
        toy_loss(trained, batch).backward()
        optimizer.step()
    assert len(topology.updates) == 5
    return {name: weight.positions().tolist() for name, weight in report.weights.items()}


def _process(rank, file, results):
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    for grow in ("gradient", "momentum", "random"):
        results[rank, grow] = _train(grow, slice(rank, None, 2))
    with pytest.raises(DSLError, match="has another topology from process to process"):
        _train("random", slice(rank, None, 2), seed=rank)
    dist.destroy_process_group()


def test_two_processes_make_the_topology_of_one(tmp_path):
    with mp.Manager() as manager:
        results = manager.dict()
        mp.spawn(_process, args=(os.path.join(tmp_path, "rendezvous"), results), nprocs=2)
        for grow in ("gradient", "momentum", "random"):
            alone = _train(grow, slice(None))
            assert results[0, grow] == alone
            assert results[1, grow] == alone
