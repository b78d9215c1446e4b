"""Processes with a part of each batch make the topology of one with all of it, and never part unseen."""

import hashlib
import os
from itertools import product

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from recbole_dsl import DSLConfig, DSLError, sparsify
from recbole_dsl.topology.engine import DynamicTopology
from recbole_dsl.topology.grow_criteria import GROW
from recbole_dsl.topology.prune_criteria import PRUNE
from tests.toy import Toy, exchange_at, toy_batch, toy_loss


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


def _digest(model, optimizer):
    sums = hashlib.sha256()
    moments = [t for p in model.parameters() for _, t in sorted(optimizer.state[p].items())]
    for tensor in (*model.state_dict().values(), *moments):
        sums.update(tensor.detach().view(-1).view(torch.uint8).numpy().tobytes())
    return sums.hexdigest()


class _Two(nn.Module):
    """Users and items, the first of which is padding; 200 weights of each are alive."""

    def __init__(self):
        super().__init__()
        self.users, self.items = nn.Embedding(100, 8), nn.Embedding(100, 8, padding_idx=0)

    def forward(self, users, items):
        return (self.users(users) * self.items(items)).sum(-1) + self.items(items).sin().sum(-1)


def _parted(rank, what, **options):
    """What both processes have after each step, when something of one is moved before the second update."""
    torch.manual_seed(0)
    model = _Two()
    config = DSLConfig(
        density=0.25, sparse_init="uniform", update_interval=3, update_ratio=0.3, stop_fraction=1, **options
    )
    report = sparsify(model, config)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    topology = DynamicTopology(report.weights, config, total_steps=13)
    weight, trained = report.weights["items.weight"], DistributedDataParallel(model)

    @torch.no_grad()
    def move(*_):
        if topology.step != 5:
            return
        state = optimizer.state[weight.values]
        if what == "values":
            weight.values.fill_(0.5)
        moved = {"values": weight.values, "moments": state["exp_avg"], "gradient": weight.values.grad}.get(what)
        if rank == 1 and moved is not None:
            moved[::2] = torch.nextafter(moved, torch.full_like(moved, 9.0))[::2]
        elif rank == 1 and what == "state":
            del state["exp_avg"]
        elif rank == 1:
            free = set(range(8, weight.numel)) - set(weight.positions().tolist())
            exchange_at(weight, [0], [min(free)], [state])

    # before the update, which the same step begins
    optimizer.register_step_post_hook(move)
    topology.attach(optimizer)
    generator = torch.Generator().manual_seed(rank)
    digests = []
    for _ in range(12):
        users, items = (torch.randint(100, (64,), generator=generator) for _ in range(2))
        optimizer.zero_grad()
        (trained(users, items) - 1).pow(2).mean().backward()
        optimizer.step()
        digests.append(_digest(model, optimizer))
    return digests, [update.exchanged for update in topology.updates]


def _message(work, *arguments, **options):
    try:
        work(*arguments, **options)
    except DSLError as error:
        return str(error)
    return "nothing"


def _process(rank, file, results):
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    for grow in ("gradient", "momentum", "random"):
        results[rank, grow] = _train(grow, slice(rank, None, 2))
    for prune, grow in product(PRUNE, GROW):
        options = {"prune": prune, "grow": grow, "prune_threshold": 0.6, "keep_rows": grow == "random"}
        results[rank, prune, grow] = _parted(rank, "values", **options)
    results[rank, "moved moments"] = _parted(rank, "moments")
    results[rank, "moved at rest"] = _parted(rank, "values", topology="fixed")
    results[rank, "moved gradient"] = _parted(rank, "gradient", prune="taylor")
    results[rank, "seed"] = _message(_train, "random", slice(rank, None, 2), seed=rank)
    results[rank, "topology"] = _message(_parted, rank, "topology")
    results[rank, "state"] = _message(_parted, rank, "state")
    dist.destroy_process_group()


def test_two_processes_make_the_topology_of_one_and_never_part_unseen(tmp_path):
    with mp.Manager() as manager:
        results = manager.dict()
        mp.spawn(_process, args=(os.path.join(tmp_path, "rendezvous"), results), nprocs=2)
        results = dict(results)
    for grow in ("gradient", "momentum", "random"):
        alone = _train(grow, slice(None))
        assert results[0, grow] == alone
        assert results[1, grow] == alone
    for key in [("moved moments",), ("moved gradient",), ("moved at rest",), *product(PRUNE, GROW)]:
        (first, exchanged), (second, _) = results[0, *key], results[1, *key]
        assert (len(exchanged) == 4 and all(exchanged)) or key == ("moved at rest",)
        assert first == second, "one unit in the last place of one process"
    for key in ("seed", "topology", "state"):
        words = "another number of values" if key == "state" else "another topology"
        message = results[0, key]
        assert message == results[1, key] and "\n" not in message
        assert words in message and "in process 1 than in the others" in message
        assert message.startswith("kernel" if key == "seed" else "items.weight")
