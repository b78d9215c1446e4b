"""Turning a sparse model back into a dense one."""

import torch
from torch import nn

from recbole_dsl.errors import DSLError
from recbole_dsl.sparse.loading import unfollow_sparse_states
from recbole_dsl.sparse.modules import WithSparseWeights, dense_class
from recbole_dsl.sparse.weight import SparseWeight


@torch.no_grad()
def densify(model: nn.Module) -> nn.Module:
    """Make the sparse weights of ``model`` dense parameters again, in place: the inverse of `sparsify`.

        densify(model)
        torch.export.export(model.eval(), (ids,))

    For ``torch.export``, ONNX and whatever else knows no sparse weights. Classes, the names and the order of the
    parameters, ties, ``requires_grad`` and the keys of the state dict are as they were before `sparsify`. Weights
    that were not alive are zero, a padding row too. It takes the memory of the dense model.

    The parameters are new: an optimizer that was built before does not train them, and a `DynamicTopology` has
    nothing to update any more and refuses further optimizers.

    Returns:
        ``model`` itself.

    Raises:
        DSLError: if a module of the user's own holds a `SparseWeight` directly; the model is then unchanged.
    """
    replaced = []
    for path, module in model.named_modules():
        for name, child in module._modules.items():
            if isinstance(child, SparseWeight):
                if name not in getattr(module, "_sparse_names", ()):
                    raise DSLError(
                        f"{path}.{name}".lstrip(".") + ": is read as a sparse weight, so cannot be dense"
                    )
                replaced.append((module, name, child))
    if isinstance(model, SparseWeight):
        raise DSLError(
            f"model={model}: must be a module with sparse weights in it; its dense() is the dense tensor"
        )
    dense: dict[SparseWeight, nn.Parameter] = {}
    for module, name, weight in replaced:
        if weight not in dense:
            dense[weight] = nn.Parameter(weight.dense().detach().clone(), weight.values.requires_grad)
            weight.is_replaced = True
        del module._modules[name]
        module._parameters[name] = dense[weight]
    for module in model.modules():
        if isinstance(module, WithSparseWeights):
            module.__class__ = dense_class(module)
    unfollow_sparse_states(model)
    return model
