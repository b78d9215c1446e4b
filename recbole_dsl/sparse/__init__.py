"""Weights of which only the alive entries exist, and the modules that hold them."""

from recbole_dsl.sparse.modules import SparseEmbedding, sparse_weights
from recbole_dsl.sparse.weight import SparseWeight

__all__ = ["SparseEmbedding", "SparseWeight", "sparse_weights"]
