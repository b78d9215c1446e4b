"""Factors of the training data from the cache, if they have been computed before."""

import hashlib

import numpy as np
from recbole.config import Config
from scipy.sparse import csr_matrix

from recbole_dsl.data.cache import cache_of, group_of
from recbole_dsl.data.progress import progress
from recbole_dsl.initialisation.factors import Factors
from recbole_dsl.initialisation.held_out import best_factors

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
        return Factors.from_kept(interactions, kept)
    with progress("Factorise", 1, config):
        if densities is None:
            factors = Factors(interactions, columns, _SEED).repeated
        else:
            factors = best_factors(interactions, columns, densities, _SEED)
    if cache:
        cache.write(group, {}, factors.kept())
    return factors
