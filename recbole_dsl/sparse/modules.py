"""Modules that hold sparse weights in the place of dense parameters."""

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Optional

from torch import Tensor, nn

from recbole_dsl.errors import DSLError
from recbole_dsl.sparse.places import Places
from recbole_dsl.sparse.weight import SparseWeight


def attach(model: nn.Module, weights: Mapping[str, SparseWeight], places: Places) -> None:
    """Put ``weights`` in the places of the parameters of ``model`` that they are named by.

    Reading the attribute then gives the dense view, assigning to it raises a DSLError, and the parameter
    appears in ``state_dict()`` as ``<name>.values``, ``<name>.columns`` and ``<name>.row_offsets``. An
    ``nn.Embedding`` becomes a `SparseEmbedding`, which looks up rows only.
    """
    for name, weight in weights.items():
        for module, attribute in places.owners[name]:
            del module._parameters[attribute]
            module._modules[attribute] = weight
            if type(module) is nn.Embedding:
                module.__class__ = SparseEmbedding
            elif not (isinstance(module, _SparseWeights) and attribute in module._sparse_names):
                module.__class__ = _with_sparse(type(module), attribute)
    for module in model.modules():
        if not isinstance(module, (_SparseWeights, SparseWeight)) and sparse_weights(module):
            module.__class__ = _with_sparse(type(module))


def sparse_weights(model: nn.Module) -> dict[str, SparseWeight]:
    """The sparse weights of ``model`` by the name of the dense parameter each replaced; tied ones once."""
    return {name: m for name, m in model.named_modules() if isinstance(m, SparseWeight)}


class _SparseWeights:
    """What every module with sparse weights in it shares: their names, which cannot be assigned to."""

    _sparse_names: frozenset = frozenset()

    def named_parameters(self, *args, **kwargs) -> Iterator[tuple[str, nn.Parameter]]:
        """As in ``nn.Module``; a sparse weight's values have the name of the dense parameter that it replaced.

        Models choose by it, to regularise what ends in "weight", say.
        """
        values = {id(module.values) for module in self.modules() if isinstance(module, SparseWeight)}
        for name, parameter in super().named_parameters(*args, **kwargs):
            yield name.removesuffix(".values") if id(parameter) in values else name, parameter

    def __setattr__(self, name, value):
        if name in self._sparse_names:
            raise DSLError(f"{name} of {type(self).__name__} is sparse and cannot be assigned to")
        super().__setattr__(name, value)


class SparseEmbedding(_SparseWeights, nn.Embedding):
    """An ``nn.Embedding`` of which only the alive entries exist.

    Called with ids of any shape it returns ``(*ids.shape, embedding_dim)`` and costs what these rows
    cost. ``weight`` is the dense view (num_embeddings, embedding_dim), made anew at each access.
    ``padding_idx`` names a row that stays empty.
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
        return self._modules["weight"].view()

    def forward(self, input: Tensor) -> Tensor:
        return self._modules["weight"].rows(input)


@cache
def _with_sparse(base: type, name: Optional[str] = None) -> type:
    """``base`` with the sparse weight ``name``, or with some in the modules below it."""
    bases = (base,) if issubclass(base, _SparseWeights) else (_SparseWeights, base)
    members = {"__module__": base.__module__, "__qualname__": base.__qualname__, "__doc__": base.__doc__}
    if name is not None:
        members[name] = property(lambda self: self._modules[name].view(), doc=f"Dense view of the sparse {name}.")
        members["_sparse_names"] = getattr(base, "_sparse_names", frozenset()) | {name}
    return type(base)(base.__name__, bases, members)
