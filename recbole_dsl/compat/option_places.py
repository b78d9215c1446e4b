"""The options of a saved run that name a place or a process, and what replaces them when a file is read."""

from collections.abc import Mapping
from typing import Any

# options that only who starts a run may give: where it reads pickles and writes, its processes and its network
NOT_STORED = frozenset(
    {
        "checkpoint_dir",
        "config_files",
        "data_cache",
        "dataloaders_save_path",
        "dataset_save_path",
        "device",
        "gpu_id",
        "group_offset",
        "ip",
        "local_rank",
        "log_wandb",
        "nproc",
        "offset",
        "port",
        "process_timeout",
        "report",
        "resume",
        "save_dataloaders",
        "save_dataset",
        "single_spec",
        "verbose",
        "warm_start",
        "world_size",
    }
)
# files that a constructor of RecBole reads; the checkpoint has all that came of them
_WITHOUT_PRETRAINING = {
    "mf_pretrain_path": None,
    "mlp_pretrain_path": None,
    "pretrain_path": None,
    "use_pretrain": False,
}
# files that a constructor insists on; any whole checkpoint of the model will do
_OF_AN_EARLIER_STAGE = ("pre_model_path", "warm_up")


def names_a_place(option: str) -> bool:
    """Whether ``option`` says where a run reads or writes, or which processes and devices it uses."""
    return (
        option in NOT_STORED
        or option in _WITHOUT_PRETRAINING
        or option in _OF_AN_EARLIER_STAGE
        or option.endswith("_path")
    )


def without_places(options: Mapping[str, Any], path: Any) -> dict[str, Any]:
    """The ``options`` in the file at ``path`` but those that name a place other than that of the data."""
    kept = {name: value for name, value in options.items() if name not in NOT_STORED}
    kept.update({name: value for name, value in _WITHOUT_PRETRAINING.items() if name in kept})
    if kept.get("train_method") == "after_pretrain":
        kept["train_method"] = "no_pretrain"
    # the file that they name may be gone
    kept.update({name: path for name in _OF_AN_EARLIER_STAGE if kept.get(name)})
    return kept
