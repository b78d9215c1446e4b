"""A model's weights in an artifact: sparse ones as packed tables, dense ones as they are."""

from collections.abc import Mapping, MutableMapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recbole_dsl.checkpoint.codec import array_of
from recbole_dsl.serving.artifact import Artifact
from recbole_dsl.serving.csr import CSR, offsets_of
from recbole_dsl.serving.packed_table import MOST_COLUMNS, PackedTable
from recbole_dsl.sparse.compressed_rows import new_offsets, smallest_unsigned
from recbole_dsl.sparse.validity import PARTS, parts_in


def store_weights(
    state: Mapping[str, Tensor],
    shapes: Mapping[str, list[int]],
    values: str,
    prefix: str,
    arrays: MutableMapping[str, np.ndarray],
) -> dict[str, Any]:
    """Put the state dict ``state`` into ``arrays``, under names that begin with ``prefix``; tied weights once.

    Args:
        shapes: sparse weight -> the shape of the dense weight that it stands for.
        values: one of `VALUES`, for the values of sparse weights. Those of more than 65,536 columns, as an
            autoencoder has for so many items, get fp16 at the least.

    Returns:
        JSON for `read_weights`.
    """
    stored: dict[str, Any] = {"sparse": {}, "dense": {}}
    known: dict[tuple, Any] = {}
    for name, shape in shapes.items():
        identity = _identity(state[f"{name}.values"], name)
        if identity not in known:
            parts = map(array_of, parts_in(state, name))
            known[identity] = _store_sparse(*parts, shape, values, f"{prefix}{len(known)}", arrays)
        stored["sparse"][name] = known[identity]
    parts = {f"{name}.{part}" for name in shapes for part in PARTS}
    for name in [name for name in state if name not in parts]:
        identity = _identity(state[name], name)
        if identity not in known:
            known[identity] = f"{prefix}{len(known)}"
            arrays[known[identity]] = array_of(state[name])
        stored["dense"][name] = known[identity]
    return stored


def read_weights(
    stored: Mapping[str, Any], artifact: Artifact, arrays: Mapping[str, np.ndarray]
) -> tuple[dict[str, Tensor], dict[str, list[int]]]:
    """The state dict that `store_weights` put into ``arrays``, and the shapes of its sparse weights.

    Args:
        artifact: has the arrays as they are in the file.

    Raises:
        DSLError, AttributeError, KeyError, RuntimeError, TypeError, ValueError: if they are not such. Whether they
            fit a model is not checked.
    """
    state, shapes = {}, {}
    for name, description in stored["sparse"].items():
        shape = description["shape"]
        if len(shape) < 2 or not all(type(n) is int and 0 < n < 2**31 for n in shape):
            raise ValueError(f"{name} has the shape {shape}")
        matrix = _read_sparse(description, artifact)
        offsets = new_offsets(shape[0], len(matrix.values))
        offsets.copy_(torch.from_numpy(matrix.offsets))
        state[f"{name}.values"] = torch.from_numpy(np.array(matrix.values, np.float32))
        columns = torch.from_numpy(matrix.column_of_entry().astype(np.int64))
        state[f"{name}.columns"] = columns.to(smallest_unsigned(int(np.prod(shape[1:], dtype=np.int64))))
        state[f"{name}.row_offsets"] = offsets
        shapes[name] = shape
    for name, key in stored["dense"].items():
        state[name] = torch.from_numpy(np.array(arrays[key]))
    return state, shapes


def _store_sparse(
    entries: np.ndarray,
    columns: np.ndarray,
    offsets: np.ndarray,
    shape: list[int],
    values: str,
    prefix: str,
    arrays: MutableMapping[str, np.ndarray],
) -> dict[str, Any]:
    n_columns, offsets = int(np.prod(shape[1:])), offsets.astype(np.int64)
    if n_columns <= MOST_COLUMNS:
        table = PackedTable.of(CSR(offsets, columns, entries.astype(np.float32), n_columns), values)
        arrays.update(table.arrays(prefix))
        return {"of": prefix, "shape": list(shape), "table": table.describe()}
    arrays[f"{prefix}.values"] = entries.astype(np.float32 if values == "fp32" else np.float16)
    arrays[f"{prefix}.columns"] = columns.astype(np.uint32)
    arrays[f"{prefix}.counts"] = np.diff(offsets).astype(np.uint32)
    return {"of": prefix, "shape": list(shape)}


def _read_sparse(description: Mapping[str, Any], artifact: Artifact) -> CSR:
    prefix, n_rows = description["of"], description["shape"][0]
    if "table" in description:
        return PackedTable.read(artifact, prefix, n_rows, description["table"]).rows(0, n_rows)
    counts = artifact.array(f"{prefix}.counts", "u4", (n_rows,))
    nnz = int(counts.sum(dtype=np.int64))
    values = artifact.array(f"{prefix}.values", "f4 f2", (nnz,))
    return CSR(offsets_of(counts), artifact.array(f"{prefix}.columns", "u4", (nnz,)), values)


def _identity(tensor: Tensor, name: str) -> tuple:
    """What tells the tensors of a state dict apart, and is equal for tied ones."""
    return (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype) if tensor.numel() else (name,)
