"""Which options of a saved run name a place or a process, and what stands for them where a file says them."""

from collections.abc import Mapping
from typing import Any

# where a run reads pickles from or writes to, and which processes and networks it uses, is said by who starts it
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
        "world_size",
    }
)
# what a model of RecBole reads into its constructor; the checkpoint holds all that became of it
_WITHOUT_PRETRAINING = {
    "mf_pretrain_path": None,
    "mlp_pretrain_path": None,
    "pretrain_path": None,
    "use_pretrain": False,
}
# of these the constructor wants the file itself; any whole checkpoint of the model serves
_OF_AN_EARLIER_STAGE = ("pre_model_path", "warm_up")


def names_a_place(option: str) -> bool:
    """Whether ``option`` says where a run reads or writes, or by which processes and devices it is made."""
    return (
        option in NOT_STORED
        or option in _WITHOUT_PRETRAINING
        or option in _OF_AN_EARLIER_STAGE
        or option.endswith("_path")
    )


def without_places(options: Mapping[str, Any], path: Any) -> dict[str, Any]:
    """The ``options`` that the file at ``path`` holds, of which none names a place but that of the data."""
    kept = {name: value for name, value in options.items() if name not in NOT_STORED}
    kept.update({name: value for name, value in _WITHOUT_PRETRAINING.items() if name in kept})
    if kept.get("train_method") == "after_pretrain":
        kept["train_method"] = "no_pretrain"
    # that file need not exist any more
    kept.update({name: path for name in _OF_AN_EARLIER_STAGE if kept.get(name)})
    return kept
