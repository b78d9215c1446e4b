"""Factors of the training data, and what weights start from, from the cache if they were computed before."""

import hashlib
from collections.abc import Callable

import numpy as np
import torch
from recbole.config import Config
from scipy.sparse import csr_matrix

from recbole_dsl.data.cache import cache_of, group_of
from recbole_dsl.data.progress import progress
from recbole_dsl.initialisation.factors import Factors
from recbole_dsl.initialisation.held_out import best_factors
from recbole_dsl.sparse.validity import PARTS
from recbole_dsl.sparse.weight import SparseWeight

# of fewer interactions, factors are computed so fast that a cache is not worth it
_WORTH = 20_000
# RecBole's default, so that most runs start as if it were theirs
_SEED = 2020


def kept_factors(
    config: Config, interactions: csr_matrix, columns: int, densities: tuple[float, float] | None
) -> Factors:
    """The `best_factors` for tables of ``densities``, or the `Factors.repeated` of a layer if that is None.

    They come from the cache if they were computed before for the same interactions and arguments. The
    seed of a run does not matter, so that runs with several seeds factorise once.
    """
    cache = cache_of(config)
    if interactions.nnz < _WORTH:
        cache = None
    content = hashlib.sha256()
    for array in (interactions.indptr, interactions.indices, interactions.data) if cache else ():
        content.update(np.ascontiguousarray(array).data)
    group = group_of("start", interactions.shape, content.hexdigest(), columns, densities)
    kept = cache and cache.read(group)
    if kept:
        factors = Factors.from_kept(interactions, kept)
        factors.group = group
        return factors
    with progress("Factorise", 1, config):
        if densities is None:
            factors = Factors(interactions, columns, _SEED).repeated
        else:
            factors = best_factors(interactions, columns, densities, _SEED)
    if cache:
        cache.write(group, {}, factors.kept())
        factors.group = group
    return factors


def initialise_once(
    config: Config,
    factors: Factors,
    arguments: tuple,
    weight: SparseWeight,
    generator: torch.Generator,
    initialise: Callable[[], None],
) -> None:
    """Let ``initialise`` start ``weight`` from ``factors``, or give it what that gave it before, from the cache.

    Args:
        arguments: plain data on which the start depends, beside the size of ``weight`` and ``generator``.
        generator: of ties; its state is afterwards as if they had been drawn.
    """
    cache = cache_of(config) if factors.group else None
    if cache is None:
        initialise()
        return
    of_weight = weight.shape, weight.nnz, weight.padding_row, weight.values.dtype, weight.values.device.type
    draws = hashlib.sha256(generator.get_state().numpy()).hexdigest()
    group = group_of("weight", factors.group, arguments, of_weight, draws)
    kept = cache.read(group)
    if kept:
        weight.load_state_dict({name: torch.from_numpy(kept[name]) for name in PARTS})
        generator.set_state(torch.from_numpy(kept["random"]))
        return
    initialise()
    state = {name: part.numpy(force=True) for name, part in weight.state_dict().items()}
    cache.write(group, {}, {**state, "random": generator.get_state().numpy()})
