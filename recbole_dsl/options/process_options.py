"""Options of several processes: the rank and device of each, and what several processes cannot train."""

import os
from collections.abc import Mapping, MutableMapping
from typing import Any

import torch
import torch.distributed as dist
from recbole.config import Config
from recbole.trainer.trainer import PretrainTrainer
from recbole.utils import get_trainer

from recbole_dsl.distributed.process_group import TIMEOUT, Place, join, torchrun_options
from recbole_dsl.errors import DSLError, refusal
from recbole_dsl.options.recbole_models import reason_for_one_process
from recbole_dsl.patching import changes


@changes(
    "os.environ[CUDA_VISIBLE_DEVICES], torch.cuda.set_device",
    "each process has a GPU of its own",
    "the process ends",
)
def join_processes(options: MutableMapping[str, Any], given: Mapping[str, Any]) -> None:
    """Join the process group that ``options``, RecBole's of one process, describe, and complete them for it.

    Only the first process shows its progress and logs more than errors. It is on the GPU of its number, or on the
    CPU if there is none, ``use_gpu`` is False or ``gpu_id`` is empty.

    Args:
        given: the options that the user gave.

    Raises:
        DSLError: if the other processes do not come, or there is no such GPU.
    """
    local_rank, offset = int(options["local_rank"]), int(options.get("offset") or 0)
    gpu_id = options["gpu_id"]
    gpu_id = ",".join(map(str, gpu_id)) if isinstance(gpu_id, (tuple, list)) else str(gpu_id)
    options["gpu_id"] = gpu_id
    if "gpu_id" in given:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu_id
    device = torch.device("cpu")
    if uses_gpus(options):
        if local_rank >= torch.cuda.device_count():
            raise refusal("nproc", options["nproc"], f"at most {torch.cuda.device_count()}, the number of GPUs")
        device = torch.device("cuda", local_rank)
        torch.cuda.set_device(device)
    world_size = int(options.get("world_size") or options["nproc"])
    place = Place(
        rank=local_rank + offset,
        local_rank=local_rank,
        world_size=int(options["nproc"]) if world_size == -1 else world_size,
        address=(str(options["ip"]), int(options["port"])),
        timeout=time_limit(options),
    )
    join(place, device)
    options["local_rank"], options["offset"], options["world_size"] = local_rank, offset, place.world_size
    options["device"], options["single_spec"] = device, False
    if place.rank != 0:
        options.update(state="error", show_progress=False, verbose=False, log_wandb=False)


def options_of_process(options: Mapping[str, Any] | None) -> dict[str, Any]:
    """``options`` of a run, with those that torchrun gives its process, if torchrun has started it."""
    options = dict(options or {})
    return options if "local_rank" in options else {**options, **torchrun_options()}


@changes(
    "os.environ[CUDA_VISIBLE_DEVICES]",
    "RecBole sets it by gpu_id, and new processes would inherit that",
    "the end",
)
def gpus_for(config: Config, nproc: int, visible: str | None) -> dict[str, Any]:
    """The option gpu_id for ``nproc`` processes if they use GPUs; no option otherwise.

    Args:
        config: of one process.
        visible: the variable CUDA_VISIBLE_DEVICES, as it was before RecBole changed it.

    Raises:
        DSLError: if gpu_id names fewer GPUs.
    """
    given = "gpu_id" in config.external_config_dict
    os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    if visible is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = visible
    if not uses_gpus(config.final_config_dict):
        return {}
    gpu_id = config["gpu_id"] if given else visible or ",".join(map(str, range(torch.cuda.device_count())))
    if nproc > len(gpu_id.split(",")):
        raise refusal(
            "nproc",
            nproc,
            f"at most {len(gpu_id.split(','))}, the number of GPUs in gpu_id={gpu_id}, or use_gpu False",
        )
    return {"gpu_id": gpu_id}


def refuse_different_runs(config: Config, resumed: str | None) -> None:
    """Raise a DSLError in every process unless all resume the same run, or all begin one."""
    names = [None] * dist.get_world_size()
    dist.all_gather_object(names, resumed and os.path.basename(resumed))
    if len(set(names)) > 1:
        found = ", ".join(sorted(str(name) for name in set(names)))
        raise DSLError(f"resume: must find the same file in every process, and found {found}")


def refuse_different_data(mark: str) -> None:
    """Raise a DSLError in every process unless ``mark``, which identifies the data, is the same in all."""
    marks = [None] * dist.get_world_size()
    dist.all_gather_object(marks, mark)
    if len(set(marks)) > 1:
        raise DSLError("data_path: must hold the same data in every process, its lines in the same order")


def uses_gpus(options: Mapping[str, Any]) -> bool:
    """Whether several processes with ``options`` compute on GPUs, and NCCL connects them."""
    return bool(options["use_gpu"] and str(options["gpu_id"])) and torch.cuda.is_available()


def time_limit(options: Mapping[str, Any]) -> float:
    """Seconds that a process may not answer before the others end: the option ``process_timeout``."""
    limit = options.get("process_timeout")
    return TIMEOUT if limit is None else float(limit)


def refuse_in_several(config: Config, budget: str | None) -> None:
    """Raise a DSLError if only one process can train by ``config`` and the option ``budget``."""
    name = config["model"]
    trainer = get_trainer(config["MODEL_TYPE"], name)
    if reason := reason_for_one_process(trainer):
        raise DSLError(f"model={name}: must be trained by one process: it {reason}")
    stage = config["train_stage"]
    if issubclass(trainer, PretrainTrainer) and str(stage).endswith("pretrain"):
        raise refusal(
            "train_stage", stage, "finetune with several processes; one process trains the stages before"
        )
    if str(config["learner"]).lower() == "sparse_adam":
        raise refusal(
            "learner", config["learner"], "an optimizer of dense gradients with several processes, such as adam"
        )
    if budget == "global":
        raise DSLError("budget=global: must be uniform or erk with more than one process")
    for option in ("save_dataset", "save_dataloaders"):
        if config[option]:
            raise refusal(option, True, "False with several processes, which would write one file")
