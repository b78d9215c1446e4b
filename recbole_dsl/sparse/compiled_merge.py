"""The merge of a block's entries with those that come, compiled by Numba; `rewrite` has it by PyTorch as well."""

from recbole_dsl.compiling import compiled


@compiled()
def merge(columns, row_offsets, n_columns, gone, come, new_columns, counts, sources):
    """Say what the entries of a block are when those at the slots ``gone`` went and the positions ``come`` came.

    Args:
        columns: (old,) of the block; ``row_offsets`` (rows + 1,) are counted from any slot.
        gone, come: as `Change` returns them.
        new_columns, sources: (new,) set to the column of each entry, and to the slot it had; -1 if it came.
        counts: (rows,) set to the number of each row's.
    """
    first = row_offsets[0]
    old = new = n_gone = n_come = 0
    for row in range(len(row_offsets) - 1):
        before, start = new, row * n_columns
        end = row_offsets[row + 1] - first
        while True:
            while old < end and n_gone < len(gone) and gone[n_gone] == old:
                old += 1
                n_gone += 1
            comes = come[n_come] - start if n_come < len(come) else n_columns
            if old < end and columns[old] < comes:
                new_columns[new], sources[new] = columns[old], old
                old += 1
            elif comes < n_columns:
                new_columns[new], sources[new] = comes, -1
                n_come += 1
            else:
                break
            new += 1
        counts[row] = new - before


@compiled()
def take(entries, sources, out):
    """Set ``out`` (new,) to the ``entries`` (old,) at ``sources``, and to zero where there is none."""
    for new in range(len(sources)):
        out[new] = entries[sources[new]] if sources[new] >= 0 else 0
