"""Trained sparse tables that benchmarks.serving searches, trained once and kept beside their data."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from benchmarks.power_law import ensure_power_law
from benchmarks.sides import build, load, make_config
from recbole_dsl import DSLTrainer, sparse_weights

_PROPERTIES = Path(__file__).parent.parent / "properties"
# between copies of an item, as a share of the standard deviation of the values
_NOISE = 0.1


def power_law_tables(data_path: str, users: int, items: int, interactions: int, epochs: int) -> tuple:
    """The tables of BPR, D = 64, density 0.1, on data of power-law popularity: CSR (users, 64) and (items, 64)."""
    dataset = ensure_power_law(data_path, users, items, interactions)
    options = {
        "data_path": data_path,
        "embedding_size": 64,
        "density": 0.1,
        "epochs": epochs,
        "train_batch_size": 4096,
        "learning_rate": 0.002,
        "update_interval": 500,
        "eval_args": {"split": {"RS": [1.0, 0.0, 0.0]}, "order": "RO", "group_by": None, "mode": "full"},
    }
    return _trained(dataset, options, Path(data_path) / dataset / f"BPR-0.1-{epochs}.npz")


def ml_1m_tables(data_path: str, epochs: int) -> tuple:
    """The same of BPR on ml-1m, with its tuned settings of ``properties/``."""
    options = {"data_path": data_path, "epochs": epochs, "train_batch_size": 4096}
    file = Path(data_path) / f"ml-1m-BPR-0.1-{epochs}.npz"
    return _trained("ml-1m", options, file, (str(_PROPERTIES / "BPR-ml-1m.yaml"),))


def drawn_with_noise(table: sp.csr_matrix, rows: int, seed: int = 0) -> sp.csr_matrix:
    """``rows`` rows of ``table`` but its first (padding), drawn with replacement, and noise on the values."""
    random = np.random.default_rng(seed)
    drawn = table[random.integers(1, table.shape[0], rows)]
    noise = random.standard_normal(drawn.nnz, dtype=np.float32)
    drawn.data += np.float32(_NOISE * drawn.data.std()) * noise
    return drawn


def _trained(dataset: str, options: Mapping[str, Any], file: Path, properties: tuple[str, ...] = ()) -> tuple:
    if not file.exists():
        with tempfile.TemporaryDirectory() as folder:
            config = make_config("BPR", dataset, {**options, "checkpoint_dir": folder}, properties)
            train_data, _, _ = load(config)
            trainer = DSLTrainer(config, build(config, train_data._dataset))
            trainer.fit(train_data, None, verbose=False, saved=False, show_progress=False)
        weights = sparse_weights(trainer.model)
        arrays = {
            f"{side}_{part}": getattr(weights[f"{side}_embedding.weight"], part).detach().numpy()
            for side in ("user", "item")
            for part in ("values", "columns", "row_offsets")
        }
        np.savez(file, **arrays)
    with np.load(file) as arrays:
        return tuple(_csr(arrays, side) for side in ("user", "item"))


def _csr(arrays: Mapping[str, np.ndarray], side: str) -> sp.csr_matrix:
    values, columns, offsets = (arrays[f"{side}_{part}"] for part in ("values", "columns", "row_offsets"))
    return sp.csr_matrix((values, columns.astype(np.int32), offsets), shape=(len(offsets) - 1, 64))
