"""The products of a chunk of a sparse table with vectors, compiled by Numba; `Chunk` has them by PyTorch as well.

``row_offsets`` (rows + 1,) are those of the chunk, counted from any slot; ``values`` and ``columns`` (entries,)
begin with its first.
"""

from recbole_dsl.compiling import compiled

# the order of a sum does not matter; what is not finite does
_ANY_ORDER = {"fastmath": {"reassoc", "contract", "nsz"}}


@compiled(**_ANY_ORDER)
def times(values, columns, row_offsets, vectors, out):
    """Set ``out`` (rows, n) to the product with ``vectors`` (columns, n)."""
    n, first = vectors.shape[1], row_offsets[0]
    for row in range(len(row_offsets) - 1):
        sums = out[row]
        sums[:] = 0
        entry, end = row_offsets[row] - first, row_offsets[row + 1] - first
        # four at a time, so that the sums are read and written a quarter as often
        while entry + 4 <= end:
            a, b, c, d = values[entry], values[entry + 1], values[entry + 2], values[entry + 3]
            of_a, of_b = vectors[columns[entry]], vectors[columns[entry + 1]]
            of_c, of_d = vectors[columns[entry + 2]], vectors[columns[entry + 3]]
            for i in range(n):
                sums[i] += a * of_a[i] + b * of_b[i] + c * of_c[i] + d * of_d[i]
            entry += 4
        while entry < end:
            a, of_a = values[entry], vectors[columns[entry]]
            for i in range(n):
                sums[i] += a * of_a[i]
            entry += 1


@compiled(**_ANY_ORDER)
def add_gradients(values, columns, row_offsets, left, right, of_values, of_vectors):
    """Add ``left`` (rows, n) times ``right`` (columns, n) transposed, at the entries, to ``of_values`` (entries,).

    Add the product of the transposed chunk with ``left`` to ``of_vectors`` (columns, n).
    """
    n, first = left.shape[1], row_offsets[0]
    for row in range(len(row_offsets) - 1):
        here = left[row]
        for entry in range(row_offsets[row] - first, row_offsets[row + 1] - first):
            column = columns[entry]
            value, there, sums = values[entry], right[column], of_vectors[column]
            product = values[entry] * 0
            for i in range(n):
                product += here[i] * there[i]
                sums[i] += value * here[i]
            of_values[entry] += product
