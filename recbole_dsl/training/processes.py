"""What several processes that train one model agree on."""

import torch.distributed as dist
from recbole.config import Config
from recbole.model.abstract_recommender import AbstractRecommender
from torch.nn.parallel import DistributedDataParallel

from recbole_dsl.sparse.modules import sparse_weights


def is_distributed(config: Config) -> bool:
    """Whether this is one of several processes."""
    return not config["single_spec"] and dist.is_initialized()


def name_for_all(config: Config, path: str) -> str:
    """The file name that the first process has chosen."""
    if not is_distributed(config):
        return path
    names = [path]
    dist.broadcast_object_list(names, 0)
    return names[0]


def agree_on_weights(config: Config, model: AbstractRecommender) -> None:
    """Start every process from the same dense weights: an initial topology may depend on them."""
    if is_distributed(config) and not sparse_weights(model):
        for tensor in model.state_dict().values():
            dist.broadcast(tensor, 0)


def keep_topology_local(config: Config, model: AbstractRecommender) -> None:
    """Keep DDP from broadcasting topologies: every process makes the same, in types that few backends send."""
    if not is_distributed(config):
        return
    names = [f"{name}.{part}" for name in sparse_weights(model) for part in ("columns", "row_offsets")]
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, names)
