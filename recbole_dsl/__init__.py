"""Dynamic Sparse Learning for every RecBole model."""

from recbole_dsl.config import DSLConfig
from recbole_dsl.errors import DSLError
from recbole_dsl.sparsify import SparsityReport, sparsify

__all__ = ["DSLConfig", "DSLError", "SparsityReport", "sparsify"]
