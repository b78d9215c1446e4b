"""Dynamic Sparse Learning for every RecBole model."""

from recbole_dsl.config import DSLConfig
from recbole_dsl.errors import DSLError
from recbole_dsl.graphs.propagation import compress_graphs
from recbole_dsl.sparse import SparseEmbedding, SparseWeight, sparse_weights
from recbole_dsl.sparse.deferred import deferred_tables
from recbole_dsl.sparsification import SparsityReport, sparsify
from recbole_dsl.topology.engine import DynamicTopology, TopologyUpdate
from recbole_dsl.training.quick_start import load_data_and_model, objective_function, run, run_recbole_dsl
from recbole_dsl.training.register import register, unregister
from recbole_dsl.training.trainer import DSLTrainer, dsl_trainer

__all__ = [
    "DSLConfig",
    "DSLError",
    "DSLTrainer",
    "DynamicTopology",
    "SparseEmbedding",
    "SparseWeight",
    "SparsityReport",
    "TopologyUpdate",
    "compress_graphs",
    "deferred_tables",
    "dsl_trainer",
    "load_data_and_model",
    "objective_function",
    "register",
    "run",
    "run_recbole_dsl",
    "sparse_weights",
    "sparsify",
    "unregister",
]
