"""Dynamic Sparse Learning for every RecBole model.

Importing this loads nothing else: each name is loaded when it is first used (PEP 562).
"""

from recbole_dsl.lazy_names import lazy_names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from recbole_dsl.config import DSLConfig, command_line_options
    from recbole_dsl.errors import DSLError
    from recbole_dsl.graphs.propagation import compress_graphs
    from recbole_dsl.sparse import SparseEmbedding, SparseWeight, sparse_weights
    from recbole_dsl.sparse.deferred import deferred_tables
    from recbole_dsl.sparse.densifying import densify
    from recbole_dsl.sparse.modules import parameter_groups
    from recbole_dsl.sparsification import SparsityReport, sparsify
    from recbole_dsl.topology.engine import DynamicTopology, TopologyUpdate
    from recbole_dsl.training.quick_start import load_data_and_model, objective_function, run, run_recbole_dsl
    from recbole_dsl.training.register import register, unregister
    from recbole_dsl.training.trainer import DSLTrainer, dsl_trainer
    from recbole_dsl.tuning.objective import tune_objective

# the module of each public name
_HOMES = {
    "DSLConfig": "config",
    "DSLError": "errors",
    "DSLTrainer": "training.trainer",
    "DynamicTopology": "topology.engine",
    "SparseEmbedding": "sparse",
    "SparseWeight": "sparse",
    "SparsityReport": "sparsification",
    "TopologyUpdate": "topology.engine",
    "command_line_options": "config",
    "compress_graphs": "graphs.propagation",
    "deferred_tables": "sparse.deferred",
    "densify": "sparse.densifying",
    "dsl_trainer": "training.trainer",
    "load_data_and_model": "training.quick_start",
    "objective_function": "training.quick_start",
    "parameter_groups": "sparse.modules",
    "register": "training.register",
    "run": "training.quick_start",
    "run_recbole_dsl": "training.quick_start",
    "sparse_weights": "sparse",
    "sparsify": "sparsification",
    "tune_objective": "tuning.objective",
    "unregister": "training.register",
}

__all__ = [
    "DSLConfig",
    "DSLError",
    "DSLTrainer",
    "DynamicTopology",
    "SparseEmbedding",
    "SparseWeight",
    "SparsityReport",
    "TopologyUpdate",
    "command_line_options",
    "compress_graphs",
    "deferred_tables",
    "densify",
    "dsl_trainer",
    "load_data_and_model",
    "objective_function",
    "parameter_groups",
    "register",
    "run",
    "run_recbole_dsl",
    "sparse_weights",
    "sparsify",
    "tune_objective",
    "unregister",
]

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
