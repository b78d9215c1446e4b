"""Modules that hold sparse weights in the place of dense parameters."""

import copyreg
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from torch import Tensor, nn

from recbole_dsl.errors import DSLError
from recbole_dsl.sparse.lazy_table import LazyTable
from recbole_dsl.sparse.parameter_sites import ParameterSites
from recbole_dsl.sparse.weight import SparseWeight


def attach(model: nn.Module, weights: Mapping[str, SparseWeight], sites: ParameterSites) -> None:
    """Put ``weights`` in the place of the parameters of ``model`` that they are named by.

    Reading the attribute then gives the dense view, assigning to it raises a DSLError, and the parameter
    appears in ``state_dict()`` as ``<name>.values``, ``<name>.columns`` and ``<name>.row_offsets``. An
    ``nn.Embedding`` becomes a `SparseEmbedding`, which looks up rows only.
    """
    for name, weight in weights.items():
        for module, attribute in sites.owners[name]:
            # keeps the order of the parameters, for `densify`
            module._parameters[attribute] = None
            module._modules[attribute] = weight
            if type(module) is nn.Embedding:
                module.__class__ = SparseEmbedding
            elif not (isinstance(module, WithSparseWeights) and attribute in module._sparse_names):
                module.__class__ = _with_sparse(dense_class(module), _names(module) | {attribute})
    for module in model.modules():
        if not isinstance(module, (WithSparseWeights, SparseWeight)) and sparse_weights(module):
            module.__class__ = _with_sparse(type(module), frozenset())


def sparse_weights(model: nn.Module, all_names: bool = False) -> dict[str, SparseWeight]:
    """The sparse weights of ``model`` by the name of the dense parameter that each replaced.

    Args:
        all_names: whether tied ones are there by each of their names; by the first alone otherwise.
    """
    named = model.named_modules(remove_duplicate=not all_names)
    return {name: m for name, m in named if isinstance(m, SparseWeight)}


def sparse_shapes(model: nn.Module) -> dict[str, list[int]]:
    """The shape of each dense parameter that a sparse weight replaced, by every name that it has."""
    return {name: list(weight.shape) for name, weight in sparse_weights(model, all_names=True).items()}


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """The trainable parameters of ``model`` in two groups for an optimizer: decayed matrices, and the rest.

        optimizer = torch.optim.AdamW(parameter_groups(model, weight_decay=0.01), lr=1e-3)

    A weight of two or more dimensions, sparse or dense, is decayed. The values of a sparse weight have one
    dimension, so a choice by ``p.ndim >= 2`` misses them. Tied ones are there once.

    Returns:
        dictionaries with ``params`` and ``weight_decay``, which is 0 for biases, norms and other vectors; a group
        without parameters is left out.
    """
    sparse = {id(weight.values) for weight in sparse_weights(model).values()}
    groups = {weight_decay: [], 0.0: []} if weight_decay else {0.0: []}
    for parameter in model.parameters():
        if parameter.requires_grad:
            is_matrix = parameter.dim() > 1 or id(parameter) in sparse
            groups[weight_decay if is_matrix else 0.0].append(parameter)
    return [{"params": some, "weight_decay": decay} for decay, some in groups.items() if some]


def stored_parameters(params: Any) -> Any:
    """``params`` of an optimizer with the values of each sparse weight instead of its dense view.

    Args:
        params: a parameter, or parameters, pairs of a name and a parameter, or groups as dictionaries.
    """
    if isinstance(params, LazyTable):
        return params.table.values
    if isinstance(params, Tensor):
        return vars(params).get("_values", params)
    if isinstance(params, dict):
        return {**params, "params": stored_parameters(params["params"])}
    if isinstance(params, tuple) and len(params) == 2 and isinstance(params[0], str):
        return params[0], stored_parameters(params[1])
    return [stored_parameters(one) for one in params]


def dense_class(module: nn.Module) -> type:
    """The class that ``module`` has, or had before it held sparse weights."""
    return nn.Embedding if type(module) is SparseEmbedding else getattr(type(module), "_dense_class", type(module))


class WithSparseWeights:
    """Mixed into the class of every module with sparse weights: their names cannot be assigned to."""

    _sparse_names: frozenset = frozenset()

    def named_parameters(self, *args, **kwargs) -> Iterator[tuple[str, nn.Parameter]]:
        """As in ``nn.Module``, but a sparse weight's values have the name of the dense parameter that it replaced.

        Models choose parameters by name, to regularise what ends in "weight", say.
        """
        values = {id(module.values) for module in self.modules() if isinstance(module, SparseWeight)}
        for name, parameter in super().named_parameters(*args, **kwargs):
            yield name.removesuffix(".values") if id(parameter) in values else name, parameter

    def __reduce_ex__(self, protocol):
        reduced = super().__reduce_ex__(max(protocol, 2))
        own = type(self)
        # a class that `_with_sparse` made cannot be imported by its name; its base can
        if "_dense_class" in vars(own) and reduced[0] is copyreg.__newobj__:
            made_of = own._dense_class, sorted(own._sparse_names)
            return _make_again, (*made_of, *reduced[1][1:]), *reduced[2:]
        return reduced

    def __setattr__(self, name, value):
        if name in self._sparse_names:
            raise DSLError(f"{name} of {type(self).__name__} is sparse and cannot be assigned to")
        super().__setattr__(name, value)

    def _sparse_weight(self, name: str) -> SparseWeight:
        # by register_parameter or torch.func.functional_call
        if self._parameters.get(name) is not None:
            raise DSLError(f"{name} of {type(self).__name__} is sparse and cannot be another parameter")
        return self._modules[name]


class SparseEmbedding(WithSparseWeights, nn.Embedding):
    """An ``nn.Embedding`` of which only the alive entries exist.

    Called with ids of any shape it returns ``(*ids.shape, embedding_dim)``, at the cost of these rows. ``weight``
    is the dense view (num_embeddings, embedding_dim), made anew at each access. The row ``padding_idx`` stays
    empty.
    """

    _sparse_names = frozenset({"weight"})

    def __init__(self, weight: SparseWeight):
        nn.Module.__init__(self)
        self.num_embeddings, self.embedding_dim = weight.n_rows, weight.n_columns
        self.padding_idx = weight.padding_row
        self.max_norm, self.norm_type, self.scale_grad_by_freq, self.sparse = None, 2.0, False, False
        self._modules["weight"] = weight

    @property
    def weight(self) -> Tensor:
        return self._sparse_weight("weight").view()

    def forward(self, input: Tensor) -> Tensor:
        return self._sparse_weight("weight").rows(input)


@cache
def _with_sparse(base: type, names: frozenset) -> type:
    """A subclass of ``base`` with the sparse weights ``names``, or with none but in modules below it."""
    members = {name: _view_of(name) for name in names}
    members |= {"__module__": base.__module__, "__qualname__": base.__qualname__, "__doc__": base.__doc__}
    members |= {"_sparse_names": names, "_dense_class": base}
    bases = (base,) if issubclass(base, WithSparseWeights) else (WithSparseWeights, base)
    return type(base)(base.__name__, bases, members)


def _view_of(name: str) -> property:
    return property(lambda self: self._sparse_weight(name).view(), doc=f"Dense view of the sparse {name}.")


def _names(module: nn.Module) -> frozenset:
    return getattr(module, "_sparse_names", frozenset())


def _make_again(base: type, names: list, *arguments) -> nn.Module:
    made = _with_sparse(base, frozenset(names))
    return made.__new__(made, *arguments)
