"""Modules that hold sparse weights in the place of dense parameters."""

from functools import cache

from torch import Tensor, nn

from recbole_dsl.errors import DSLError
from recbole_dsl.sparse.weight import SparseWeight


def attach(module: nn.Module, name: str, weight: SparseWeight) -> None:
    """Put ``weight`` in the place of the parameter ``name`` of ``module``.

    Reading ``module.<name>`` then gives the dense view, assigning to it raises a DSLError, and the
    parameter appears in ``state_dict()`` as ``<name>.values``, ``<name>.columns`` and
    ``<name>.row_offsets``. An ``nn.Embedding`` becomes a `SparseEmbedding`, which looks up rows only.
    """
    del module._parameters[name]
    module._modules[name] = weight
    if type(module) is nn.Embedding:
        module.__class__ = SparseEmbedding
    elif not (isinstance(module, _SparseWeights) and name in module._sparse_names):
        module.__class__ = _with_sparse(type(module), name)


def sparse_weights(model: nn.Module) -> dict[str, SparseWeight]:
    """The sparse weights of ``model`` by the name of the dense parameter each replaced; tied ones once."""
    return {name: m for name, m in model.named_modules() if isinstance(m, SparseWeight)}


class _SparseWeights:
    """What every module with sparse weights shares: their names cannot be assigned to."""

    _sparse_names: frozenset = frozenset()

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
def _with_sparse(base: type, name: str) -> type:
    names = getattr(base, "_sparse_names", frozenset()) | {name}
    bases = (base,) if issubclass(base, _SparseWeights) else (_SparseWeights, base)
    members = {
        name: property(lambda self: self._modules[name].view(), doc=f"Dense view of the sparse {name}."),
        "_sparse_names": names,
        "__module__": base.__module__,
        "__qualname__": base.__qualname__,
        "__doc__": base.__doc__,
    }
    return type(base)(base.__name__, bases, members)
