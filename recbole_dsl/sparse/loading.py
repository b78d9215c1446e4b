"""Loading the state of a sparse model into a dense one, which becomes sparse."""

from collections.abc import Mapping
from functools import wraps

from torch import Tensor, nn

from recbole_dsl.sparse.compressed_rows import uniform_blocks
from recbole_dsl.sparse.modules import attach
from recbole_dsl.sparse.parameter_sites import ParameterSites, find_sites
from recbole_dsl.sparse.weight import SparseWeight


def become_sparse(model: nn.Module, state_dict: Mapping[str, Tensor]) -> None:
    """Make the parameters of ``model`` sparse that are sparse in ``state_dict``; loading then fills them."""
    sites = find_sites(model)
    attach(model, sparse_counterparts(sites, state_dict), sites)


def sparse_counterparts(sites: ParameterSites, state_dict: Mapping[str, Tensor]) -> dict[str, SparseWeight]:
    """An empty weight for each dense parameter that ``state_dict`` holds in sparse form, by name."""
    found = {}
    for name, parameter in sites.parameters.items():
        if parameter.dim() > 1 and f"{name}.values" in state_dict and name not in state_dict:
            nothing = uniform_blocks(len(parameter), parameter[0].numel(), False)
            found[name] = SparseWeight(
                parameter.shape, nothing, sites.padding[name], parameter.dtype, parameter.device
            )
            found[name].requires_grad_(parameter.requires_grad)
    return found


def follow_sparse_states(module: nn.Module) -> None:
    """Let ``module`` become sparse when a sparse state is loaded into it.

    For a frozen copy of a trained module, which models refresh by ``copy.load_state_dict(trained.state_dict())``.
    """
    module.register_load_state_dict_pre_hook(_become_sparse_below)


def unfollow_sparse_states(model: nn.Module) -> None:
    """Undo `follow_sparse_states` for every module of ``model``."""
    for module in model.modules():
        hooks = module._load_state_dict_pre_hooks
        for key in [key for key, hook in hooks.items() if getattr(hook, "hook", hook) is _become_sparse_below]:
            del hooks[key]


def accept_sparse_states(model_class: type) -> None:
    """Let dense models of ``model_class`` load the state of a sparse one, even in their constructor.

    A parameter that stays dense is marked for `was_loaded`.
    """
    usual = model_class.load_state_dict

    @wraps(usual)
    def load_state_dict(self, state_dict, *args, **kwargs):
        become_sparse(self, state_dict)
        result = usual(self, state_dict, *args, **kwargs)
        for name, parameter in find_sites(self).parameters.items():
            if name in state_dict:
                parameter._was_loaded = True
        return result

    model_class.load_state_dict = load_state_dict


def was_loaded(parameter: nn.Parameter) -> bool:
    """Whether a state was loaded into ``parameter`` of a model whose class may `accept_sparse_states`."""
    return getattr(parameter, "_was_loaded", False)


def _become_sparse_below(module: nn.Module, state_dict: Mapping[str, Tensor], prefix: str, *_) -> None:
    own = {name[len(prefix) :]: tensor for name, tensor in state_dict.items() if name.startswith(prefix)}
    become_sparse(module, own)
