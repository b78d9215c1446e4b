"""Names of PyTorch that it does not promise to keep, each with what is lost without it.

If one is missing, a warning says in one line what is lost, and the work goes on without it.
"""

import sys
from collections.abc import Callable
from functools import wraps
from logging import getLogger
from pkgutil import resolve_name
from typing import Any, TypeVar

import torch
from torch import Tensor

from recbole_dsl.errors import DSLError

_Function = TypeVar("_Function", bound=Callable)

# without these no weight can be sparse
NEEDED = ("torch._C.DisableTorchFunctionSubclass",)
LOST = {
    "torch.Tensor._make_wrapper_subclass": "large tables, and scores of all items, take the memory of dense ones",
    "torch.Tensor._make_subclass": "propagation matrices stay as they are, and graph models are slower",
    "torch.utils._python_dispatch.TorchDispatchMode": "FLOPs are not counted, and evaluation is slower",
    "torch._C._set_throw_on_mutable_data_ptr": "what writes past PyTorch into a table without memory crashes",
    "torch._C._dynamo.eval_frame.get_eval_frame_callback": "torch.compile may fail on models with large tables",
    "torch._disable_dynamo": "importing takes two seconds longer",
    "torch.Tensor._indices": "sparse gradients are sorted, which takes longer",
    "torch.optim.optimizer._foreach_supported_types": "optimizers that have no fused form are slower",
    "torch.ops.aten._embedding_bag_per_sample_weights_backward": "cross entropy over large tables takes memory",
}


def _found(name: str) -> Any:
    """What PyTorch has under ``name``; None, with a warning, if there is no such name."""
    owner, _, attribute = name.rpartition(".")
    try:
        return getattr(resolve_name(owner), attribute)
    except (ImportError, AttributeError) as error:
        if name in NEEDED:
            raise DSLError(
                f"torch {torch.__version__} has no {name}, without which no weight can be sparse: install an "
                "earlier torch, or a later recbole-dsl"
            ) from error
        getLogger(__name__).warning(f"torch {torch.__version__} has no {name}: {LOST[name]}")
        return None


DisableTorchFunctionSubclass = _found("torch._C.DisableTorchFunctionSubclass")
make_wrapper_subclass = _found("torch.Tensor._make_wrapper_subclass")
make_subclass = _found("torch.Tensor._make_subclass")
TorchDispatchMode = _found("torch.utils._python_dispatch.TorchDispatchMode")
forbid_data_pointer = _found("torch._C._set_throw_on_mutable_data_ptr") or (lambda tensor: None)
eval_frame_callback = _found("torch._C._dynamo.eval_frame.get_eval_frame_callback") or (lambda: None)
_disable = _found("torch._disable_dynamo") or torch.compiler.disable
foreach_types = _found("torch.optim.optimizer._foreach_supported_types") or []
_indices = _found("torch.Tensor._indices")
_gradient_of_weights = _found("torch.ops.aten._embedding_bag_per_sample_weights_backward")

# whether tensors without memory can be made
HAS_WRAPPERS = make_wrapper_subclass is not None


def unless_compiler_loaded(usual: Callable, plain: Callable) -> Callable:
    """A function that is ``plain`` until PyTorch's compiler is loaded, and ``usual`` from then on.

    What is not to be compiled loads the compiler when it is called, which takes two seconds and 150 MB.
    """

    @wraps(plain)
    def function(*args: Any, **kwargs: Any) -> Any:
        return (usual if "torch._dynamo" in sys.modules else plain)(*args, **kwargs)

    return function


def not_traced(function: _Function) -> _Function:
    """``function``, which PyTorch's compiler calls as it is."""
    return unless_compiler_loaded(_disable(function), function)


class DispatchMode(TorchDispatchMode or object):
    """PyTorch's mode that sees every operation; it does not load the compiler."""

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        usual = cls.__torch_dispatch__
        if hasattr(usual, "__wrapped__"):
            cls.__torch_dispatch__ = unless_compiler_loaded(usual, usual.__wrapped__)


def entries_of(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """The indices and values of a sparse ``tensor``; not coalesced, if PyTorch gives them so."""
    if _indices is None:
        tensor = tensor.coalesce()
        return tensor.indices(), tensor.values()
    return tensor._indices(), tensor._values()


def gradient_of_weights(left: Tensor, right: Tensor, columns: Tensor, offsets: Tensor, rows: Tensor) -> Tensor:
    """(entries,): the product of row ``rows[i]`` of ``left`` with row ``columns[i]`` of ``right``."""
    if _gradient_of_weights is None:
        return (left.index_select(0, rows) * right.index_select(0, columns)).sum(1)
    return _gradient_of_weights(left, right, columns, offsets, rows, 0, -1)
