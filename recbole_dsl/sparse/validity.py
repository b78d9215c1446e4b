"""Whether three tensors are a topology and its values: checked before what a file says is used."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from recbole_dsl.sparse.compressed_rows import new_offsets, smallest_unsigned

# the names of the three in a state dict, after that of the weight
PARTS = "values", "columns", "row_offsets"


def parts_in(state: Mapping[str, Any], name: str) -> list[Any]:
    """The `PARTS` of the sparse weight ``name`` in a state dict; None for one that is not there."""
    return [state.get(f"{name}.{part}") for part in PARTS]


def topology_problem(
    n_rows: int,
    n_columns: int,
    padding_row: int | None,
    values: Tensor,
    columns: Tensor,
    row_offsets: Tensor,
) -> str | None:
    """Why the tensors are not those of a `SparseWeight` of shape (``n_rows``, ``n_columns``), or None.

    ``values`` (nnz,) must be floating-point and finite, ``columns`` (nnz,) and ``row_offsets`` (n_rows + 1,) of
    their smallest types, the columns ascending within each row, and the padding row empty unless every entry is
    alive.
    """
    numel = n_rows * n_columns
    if values.dim() != 1 or columns.shape != values.shape:
        return f"{tuple(values.shape)} values and {tuple(columns.shape)} columns do not belong together"
    if row_offsets.shape != (n_rows + 1,):
        return f"the file has {row_offsets.numel() - 1} rows, the model {n_rows}"
    if any(t.layout is not torch.strided for t in (values, columns, row_offsets)):
        return "its tensors are not dense"
    if not values.is_floating_point():
        return f"values are {values.dtype}, must be floating-point"
    for name, tensor, dtype in (
        ("columns", columns, smallest_unsigned(n_columns)),
        ("row_offsets", row_offsets, new_offsets(0, len(values)).dtype),
    ):
        if tensor.dtype != dtype:
            return f"{name} are {tensor.dtype}, must be {dtype}"
    offsets, columns = row_offsets.long(), columns.long()
    counts = offsets.diff()
    if offsets[0] != 0 or offsets[-1] != len(values) or (counts < 0).any():
        return "row_offsets do not divide the values into rows"
    if len(columns) and (columns.min() < 0 or columns.max() >= n_columns):
        return f"columns are outside 0..{n_columns - 1}"
    positions = torch.repeat_interleave(counts) * n_columns + columns
    if (positions.diff() <= 0).any():
        return "columns do not ascend within each row"
    if padding_row is not None and len(values) < numel and counts[padding_row] != 0:
        return f"the padding row {padding_row} has entries"
    if not values.isfinite().all():
        return "values are not finite"
    return None
