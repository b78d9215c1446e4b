"""Make the weights of any model sparse: which ones, how dense each, and a report of both."""

from dataclasses import dataclass, field, replace
from functools import cache
from logging import getLogger

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from recbole_dsl.config import DSLConfig
from recbole_dsl.errors import DSLError, refusal
from recbole_dsl.initialisation.freshness import pretrained_values
from recbole_dsl.initialisation.masks import INITIALISERS, MaskSpec
from recbole_dsl.sparse.compressed_rows import uniform_blocks
from recbole_dsl.sparse.deferred import DeferredTensor, draw_entries, make_the_rest, realise
from recbole_dsl.sparse.loading import follow_sparse_states
from recbole_dsl.sparse.modules import attach, sparse_weights
from recbole_dsl.sparse.parameter_sites import ParameterSites, find_sites
from recbole_dsl.sparse.weight import SparseWeight
from recbole_dsl.topology.budget import TensorSize, allocate

_NOT_TRAINED = "not trained"


@dataclass
class SparsityReport:
    """What `sparsify` did to a model; ``print(report)`` shows it.

    Attributes:
        weights: the sparse weights by the name of the dense parameter each replaced.
        dense: name of each parameter that stayed dense -> (number of weights, reason).
        frozen: sparse weights that are not trained.
        dropout: the new probability of dropout layers by the old one, where `DSLTrainer` changed it.
    """

    weights: dict[str, SparseWeight]
    dense: dict[str, tuple[int, str]] = field(default_factory=dict)
    frozen: dict[str, SparseWeight] = field(default_factory=dict)
    dropout: dict[float, float] = field(default_factory=dict)

    @property
    def nnz(self) -> int:
        """Alive weights of the sparse tensors."""
        return sum(weight.nnz for weight in self.weights.values())

    @property
    def numel(self) -> int:
        """Weights that the sparse tensors would have as dense ones."""
        return sum(weight.numel for weight in self.weights.values())

    @property
    def density(self) -> float:
        return self.nnz / self.numel

    def dropout_change(self) -> str:
        """Each probability that `dropout` changed, as "from 0.5 to 0.2"."""
        return ", ".join(f"from {before:g} to {after:.3g}" for before, after in self.dropout.items())

    def __str__(self) -> str:
        stayed = sum(count for count, reason in self.dense.values() if reason != _NOT_TRAINED)
        lines = [
            f"trainable weights: {self.nnz + stayed:,} || dense model: {self.numel + stayed:,} || "
            f"density of the sparse tensors: {self.density:.4f}"
        ]
        width = max(len(name) for name in (*self.weights, *self.frozen, *self.dense))
        for name, weight in {**self.weights, **self.frozen}.items():
            shape = " x ".join(map(str, weight.shape))
            note = f", {_NOT_TRAINED}" if name in self.frozen else ""
            if weight.pretrained:
                note += f", the largest of the values that it was given: {weight.pretrained}"
            lines.append(f"  {name:<{width}}  sparse  {shape}, {weight.nnz:,} alive, {weight.density:.4f}{note}")
        for name, (count, reason) in self.dense.items():
            lines.append(f"  {name:<{width}}  dense   {count:,} weights: {reason}")
        if self.dropout:
            lines.append(f"dropout {self.dropout_change()}")
        return "\n".join(lines)


def sparsify(model: nn.Module, config: DSLConfig | None = None) -> SparsityReport:
    """Replace the weights of ``model`` by sparse ones, in place; see `DSLConfig` for the choice of them.

    The alive weights keep their values. With ``sparse_init=svd``, `DSLTrainer` gives them new values when training
    begins. By default it does so for fresh tensors, and the largest entries of pretrained ones stay; see
    `pretrained_values`. Make the optimizer afterwards. A model that is sparse already does not change. One tensor
    under two names stays one.

    Raises:
        DSLError: if ``targets`` or ``exclude`` names nothing, or ``targets`` a tensor that cannot be sparse, if
            the budget leaves a tensor no weight, or if one has no shape yet (``nn.LazyLinear``). The model is then
            unchanged.
    """
    config = config or DSLConfig()
    sites = find_sites(model)
    for name, parameter in sites.parameters.items():
        if is_lazy(parameter):
            raise DSLError(f"{name}: has no shape yet; run the lazy module on a batch before sparsify()")
    present = sparse_weights(model)
    trained = {name: weight for name, weight in present.items() if weight.values.requires_grad}
    frozen = {name: weight for name, weight in present.items() if name not in trained}
    if trained:
        others = {
            n: (p.numel(), _left_dense(n, sites, config) or "not chosen") for n, p in sites.parameters.items()
        }
        return SparsityReport(trained, others, frozen)
    chosen, dense = _choose(model, sites, config)
    sizes = []
    for name, parameter in chosen.items():
        width = parameter.shape[1:].numel()
        capacity = parameter.numel() - (0 if sites.padding[name] is None else width)
        sizes.append(TensorSize(name, len(parameter), width, capacity))
    numel = sum(size.numel for size in sizes)
    if config.weights is not None and config.weights > numel:
        raise refusal("weights", config.weights, f"at most {numel}, all that the sparse tensors can have")
    density = config.density if config.weights is None else config.weights / numel
    counts = allocate(sizes, density, config.budget or "uniform")
    # a warm start gives them all others
    is_default = config.sparse_init is None and density < 1 and config.warm_start is None
    pretrained = pretrained_values(chosen, sites.padding) if is_default else {}
    generator = torch.Generator().manual_seed(config.seed)
    weights = {}
    for (name, parameter), nnz in zip(chosen.items(), counts):
        padding = sites.padding[name]
        initialiser = config.sparse_init or ("magnitude" if name in pretrained else "svd")
        spec = MaskSpec(len(parameter), parameter.shape[1:].numel(), nnz, padding, config.keep_rows)
        weights[name] = _sparse(name, parameter, spec, initialiser, generator)
        weights[name].pretrained = pretrained.get(name)
    attach(model, weights, sites)
    make_the_rest(model)
    frozen_tables = [n for n in dense if (p := sites.parameters[n]).dim() > 1 and not p.requires_grad]
    for module in {id(m): m for n in frozen_tables for m in sites.owning_modules(n)}.values():
        follow_sparse_states(module)
    return SparsityReport(weights, dense, frozen)


def _sparse(
    name: str, parameter: Tensor, spec: MaskSpec, initialiser: str, generator: torch.Generator
) -> SparseWeight:
    """The sparse weight with the alive entries of ``parameter``, which may be deferred."""

    @cache
    def dense() -> Tensor:
        if isinstance(parameter, DeferredTensor):
            getLogger().info(f"{name} is made dense for its initialisation")
        return realise(parameter).reshape(spec.rows, spec.columns)

    everything = spec.nnz == parameter.numel()
    if everything:
        alive = uniform_blocks(spec.rows, spec.columns, True)
    else:
        alive = INITIALISERS[initialiser](replace(spec, dense=dense), generator)
    weight = SparseWeight(parameter.shape, alive, spec.padding_row, parameter.dtype, parameter.device)
    chosen_by_value = dense.cache_info().currsize > 0
    empty_row = None if everything else spec.padding_row
    if chosen_by_value or not draw_entries(parameter, weight.values.detach(), empty_row):
        weight.take(dense())
    weight.awaits_data = initialiser == "svd" and not everything
    return weight


def _choose(
    model: nn.Module, sites: ParameterSites, config: DSLConfig
) -> tuple[dict[str, nn.Parameter], dict[str, tuple[int, str]]]:
    chosen, dense, matched = {}, {}, set()
    for name, parameter in sites.parameters.items():
        targeted, excluded = sites.hits(name, config.targets or ()), sites.hits(name, config.exclude)
        matched |= targeted | excluded
        reason = _left_dense(name, sites, config)
        # a name without wildcards asks for this very tensor; a module's name asks for what of it can be sparse
        literal = targeted & set(sites.aliases[name])
        if literal and reason and not excluded:
            raise DSLError(f"targets={literal.pop()}: it cannot be sparse ({reason})")
        if reason:
            dense[name] = parameter.numel(), reason
        else:
            chosen[name] = parameter
    for option, patterns in (("targets", config.targets or ()), ("exclude", config.exclude)):
        for pattern in patterns:
            if pattern not in matched:
                raise DSLError(f"{option}={pattern}: must match one of {', '.join(sites.parameters)}")
    if not chosen:
        what = "targets" if config.targets else "exclude" if config.exclude else "model"
        value = ",".join(config.targets or config.exclude) or type(model).__name__
        raise DSLError(f"{what}={value}: no trainable weight of two or more rows is left to be sparse")
    return chosen, dense


def _left_dense(name: str, sites: ParameterSites, config: DSLConfig) -> str | None:
    """Why ``name`` is left dense: the options say so, or it cannot be sparse."""
    if sites.hits(name, config.exclude):
        return "excluded"
    reason = _stays_dense(name, sites)
    if config.targets is not None:
        return reason if reason or sites.hits(name, config.targets) else "not among the targets"
    # a layer of one output: a weight that is not alive there cuts a whole unit off, and all that leads to it
    return reason or ("a single row" if len(sites.parameters[name]) == 1 else None)


def _stays_dense(name: str, sites: ParameterSites) -> str | None:
    """Why a parameter cannot be sparse, or None if it can."""
    parameter = sites.parameters[name]
    if not parameter.requires_grad:
        return _NOT_TRAINED
    if parameter.dim() < 2:
        return "one-dimensional"
    if not parameter.is_floating_point():
        return "not a real floating-point tensor"
    if parameter.numel() == 0:
        return "empty"
    for owner in sites.owning_modules(name):
        if isinstance(owner, nn.RNNBase):
            return "recurrent: its kernels read dense weights"
        if isinstance(owner, nn.Embedding) and owner.max_norm is not None:
            return "max_norm writes into the rows"
        if isinstance(owner, nn.Embedding) and owner.scale_grad_by_freq:
            return "scale_grad_by_freq needs the dense gradient"
    return None
