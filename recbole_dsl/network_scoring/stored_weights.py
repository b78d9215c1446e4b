"""A model's weights in an artifact: sparse ones and dense matrices as packed tables, all else as it is."""

from collections.abc import Collection, Mapping, MutableMapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recbole_dsl.checkpoint.codec import array_of
from recbole_dsl.serving.artifact import Artifact
from recbole_dsl.serving.csr import CSR, column_type, offsets_of
from recbole_dsl.serving.packed_table import MOST_COLUMNS, PackedTable
from recbole_dsl.sparse.compressed_rows import new_offsets, smallest_unsigned
from recbole_dsl.sparse.validity import PARTS, parts_in

# of a dense matrix that is packed: its entries, at least, and their size, at most, which fp16 can hold
_LARGE, _HIGHEST = 1024, 2.0**15


def store_weights(
    state: Mapping[str, Tensor],
    shapes: Mapping[str, list[int]],
    parameters: Collection[str],
    values: str,
    prefix: str,
    arrays: MutableMapping[str, np.ndarray],
) -> dict[str, Any]:
    """Put the state dict ``state`` into ``arrays``, under names that begin with ``prefix``; tied weights once.

    Args:
        shapes: sparse weight -> the shape of the dense weight that it stands for.
        parameters: the names of what the model learns. Dense ones of two axes or more and 1,024 entries or more
            are packed, as those of recurrent layers are.
        values: one of `VALUES`, for the values of sparse weights and packed ones. Sparse ones of more than 65,536
            columns, as an autoencoder has for so many items, get fp16 at the least; such dense ones stay.

    Returns:
        JSON for `read_weights`.
    """
    stored: dict[str, Any] = {"sparse": {}, "packed": {}, "dense": {}}
    known: dict[tuple, Any] = {}
    for name, shape in shapes.items():
        identity = _identity(state[f"{name}.values"], name)
        if identity not in known:
            entries, columns, offsets = map(array_of, parts_in(state, name))
            n_columns = int(np.prod(shape[1:]))
            matrix = CSR(offsets.astype(np.int64), columns, entries.astype(np.float32), n_columns)
            known[identity] = _store_matrix(matrix, shape, values, f"{prefix}{len(known)}", arrays)
        stored["sparse"][name] = known[identity]
    parts = {f"{name}.{part}" for name in shapes for part in PARTS}
    for name in [name for name in state if name not in parts]:
        identity, is_packed = _identity(state[name], name), name in parameters and can_be_packed(state[name])
        if identity not in known:
            own = f"{prefix}{len(known)}"
            if is_packed:
                known[identity] = _store_matrix(all_entries(state[name]), state[name].shape, values, own, arrays)
            else:
                known[identity] = own
                arrays[own] = array_of(state[name])
        stored["packed" if isinstance(known[identity], dict) else "dense"][name] = known[identity]
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
        shape = _shape(name, description)
        matrix = _read_matrix(description, artifact)
        offsets = new_offsets(shape[0], len(matrix.values))
        offsets.copy_(torch.from_numpy(matrix.offsets))
        state[f"{name}.values"] = torch.from_numpy(np.array(matrix.values, np.float32))
        columns = torch.from_numpy(matrix.column_of_entry().astype(np.int64))
        state[f"{name}.columns"] = columns.to(smallest_unsigned(int(np.prod(shape[1:], dtype=np.int64))))
        state[f"{name}.row_offsets"] = offsets
        shapes[name] = shape
    # earlier files have none
    for name, description in stored.get("packed", {}).items():
        shape = _shape(name, description)
        values = np.array(_read_matrix(description, artifact).values, np.float32)
        state[name] = torch.from_numpy(values).reshape(shape)
    for name, key in stored["dense"].items():
        state[name] = torch.from_numpy(np.array(arrays[key]))
    return state, shapes


def can_be_packed(tensor: Tensor) -> bool:
    """Whether ``tensor`` is packed if it is learned and dense."""
    if tensor.dtype != torch.float32 or tensor.dim() < 2 or tensor.numel() < _LARGE:
        return False
    # NaN is not below
    return tensor[0].numel() <= MOST_COLUMNS and bool((tensor.abs() <= _HIGHEST).all())


def all_entries(tensor: Tensor) -> CSR:
    """``tensor`` (rows, ...) as a matrix of which every entry is stored."""
    n_rows, n_columns = len(tensor), tensor[0].numel()
    columns = np.tile(np.arange(n_columns, dtype=column_type(n_columns)), n_rows)
    return CSR(np.arange(n_rows + 1) * n_columns, columns, array_of(tensor).reshape(-1), n_columns)


def _shape(name: str, description: Mapping[str, Any]) -> list[int]:
    shape = description["shape"]
    if len(shape) < 2 or not all(type(n) is int and 0 < n < 2**31 for n in shape):
        raise ValueError(f"{name} has the shape {shape}")
    return shape


def _store_matrix(
    matrix: CSR, shape: Sequence[int], values: str, prefix: str, arrays: MutableMapping[str, np.ndarray]
) -> dict[str, Any]:
    if matrix.n_columns <= MOST_COLUMNS:
        table = PackedTable.of(matrix, values)
        arrays.update(table.arrays(prefix))
        return {"of": prefix, "shape": list(shape), "table": table.describe()}
    arrays[f"{prefix}.values"] = matrix.values.astype(np.float32 if values == "fp32" else np.float16)
    arrays[f"{prefix}.columns"] = matrix.columns.astype(np.uint32)
    arrays[f"{prefix}.counts"] = np.diff(matrix.offsets).astype(np.uint32)
    return {"of": prefix, "shape": list(shape)}


def _read_matrix(description: Mapping[str, Any], artifact: Artifact) -> CSR:
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
