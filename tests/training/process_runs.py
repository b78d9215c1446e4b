"""What the processes of the tests do, and how they are started."""

import hashlib
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import torch
import torch.distributed as dist
from recbole.utils import init_seed

from benchmarks.scaling import count_bytes
from recbole_dsl.data.loading import load_data
from recbole_dsl.distributed.launching import launch
from recbole_dsl.distributed.process_group import leave, told_to_others
from recbole_dsl.errors import DSLError
from recbole_dsl.training.configs import run_config, trainer_of
from recbole_dsl.training.model_building import make_model

COMMAND = Path(__file__).parent.parent.parent / "run_recbole_dsl.py"


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("", 0))
        return one.getsockname()[1]


def in_two(work, *arguments, **options):
    """What ``work(*arguments, options)`` returns in the first of two processes."""
    several = {"nproc": 2, "world_size": 2, "offset": 0, "ip": "localhost", "port": free_port()}
    return launch(work, arguments, {**options, **several, "process_timeout": 100}, 100)


def trainer_and_data(model, options, dataset="tiny"):
    config, resumed = run_config(model, dataset, None, options)
    init_seed(config["seed"], config["reproducibility"])
    data = load_data(config)
    init_seed(config["seed"], config["reproducibility"])
    network = make_model(config, data.train._dataset)
    trainer_class = trainer_of(config)
    trainer_class.prepare(config, network)
    trainer = trainer_class(config, network)
    if resumed is not None:
        trainer.resume_checkpoint(resumed)
    return trainer, data


def digest(model) -> str:
    """Of every weight of ``model`` and of every topology."""
    sums = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        if isinstance(tensor, torch.Tensor):
            sums.update(name.encode() + tensor.cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return sums.hexdigest()


def of_all(value):
    values = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


@torch.no_grad()
def part(trainer):
    """Move what the second process has by one unit in the last place, between updates and after the last."""
    last = trainer.topology.step == trainer.topology.total_steps - 1
    weights = trainer.model.parameters() if last else [w.values for w in trainer.sparsity.weights.values()]
    if dist.get_rank() == 1 and (last or trainer.topology.step == 4):
        for weight in weights:
            weight.copy_(torch.nextafter(weight.detach(), torch.full_like(weight, 9.0)))


def train_each(models, choices, options):
    """A training of each model with each of ``choices``: of both processes, what they had after every update."""
    found = []
    with told_to_others():
        for model in models:
            for choice in choices:
                trainer, data = trainer_and_data(model, {**options, **choice})
                digests, sent = [], count_bytes(trainer.distributed_model)
                trainer.optimizer.register_step_post_hook(lambda *_, t=trainer: part(t))
                trainer.topology.on_update = lambda _, d=digests, t=trainer: d.append(digest(t.model))
                trainer.fit(data.train, data.valid)
                best = trainer.evaluate(data.test)
                found.append(
                    {
                        "digests": of_all([*digests, digest(trainer.model)]),
                        "files": of_all(trainer.saved_model_file),
                        "valid": of_all(dict(trainer.best_valid_result)),
                        "test": of_all(dict(best)),
                        "bytes": of_all(sent() / trainer.topology.step),
                        "alive": of_all(sum(weight.nnz for weight in trainer.sparsity.weights.values())),
                        "growth": of_all(trainer.topology.growth_peak_bytes),
                    }
                )
        leave()
    return found


def train_on_data_of_their_own(paths, options):
    """What each process is told that has the data in one of ``paths``, of its number."""
    with told_to_others():
        trainer, data = trainer_and_data("BPR", {**options, "data_path": paths[options["local_rank"]]})
        try:
            trainer.fit(data.train, data.valid)
            told = None
        except DSLError as error:
            told = str(error)
        found = of_all(told)
        leave()
    return found


def stop_and_go_on(model, stops_at, options):
    """The weights of a training, and of one that was stopped in epoch ``stops_at`` and went on; and its file."""

    def stop(epoch, score):
        if epoch == stops_at:
            raise RuntimeError("enough")

    with told_to_others():
        whole, data = trainer_and_data(model, options)
        whole.fit(data.train, data.valid)
        stopped, data = trainer_and_data(model, options)
        try:
            stopped.fit(data.train, data.valid, callback_fn=stop)
        except RuntimeError as error:
            assert str(error) == "enough"
        file = stopped.last_model_file
        left = Path(file).read_bytes()
        dist.barrier()
        resumed, data = trainer_and_data(model, {**options, "resume": file})
        resumed.fit(data.train, data.valid)
        result = of_all(digest(whole.model)), of_all(digest(resumed.model)), file, left
        leave()
    return result


def start(*arguments, program=(sys.executable,), script=COMMAND, options=None, **environment):
    """The command in a process of its own; ``options`` are added to its arguments, ``environment`` to ours."""
    words = [f"--{name}={value}" for name, value in (options or {}).items()]
    return subprocess.Popen(
        [*program, str(script), *words, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )


def children_of(process, count):
    """The processes that ``process`` has started to train, in the order of their ranks."""
    found = [p for p in psutil.Process(process.pid).children() if "spawn_main" in " ".join(p.cmdline())]
    assert len(found) == count
    return sorted(found, key=lambda p: p.pid)


def wait_for(condition, seconds=300):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.2)
