"""The loops of exact top k that Numba compiles.

A heap is a pair of arrays (scores, ids), the worst at its root: the lowest score and, of those, the largest id.
"""

import numpy as np

from recbole_dsl.compiling import compiled


@compiled()
def search_index(
    queries, margins, exclude_offsets, exclude_ids, allowed,
    values, columns, row_offsets, factors,
    items, list_offsets, places, list_values, block, highest, lowest, place_factors,
    ids, scores,
):  # fmt: skip
    """Fill ``ids`` and ``scores`` (n, k) with the best items of each query, visiting blocks by falling bounds.

    A sum in float32, of an item's score or of a block's bound, is wrong by ``margins`` (n,) at most. Empty arrays
    stand for no exclusions, no limits of the items, no factors of them, and for the columns of a dense table.
    Returns how many blocks were visited.
    """
    n_columns, blocks = highest.shape
    n_items = len(items)
    sums = np.empty(block, np.float32)
    bounds, order = np.empty(blocks, np.float32), np.empty(blocks, np.int64)
    alive = np.empty(n_columns, np.int64)
    visited = 0
    for query in range(len(queries)):
        vector = queries[query]
        n_alive = 0
        for column in range(n_columns):
            if vector[column] != 0:
                alive[n_alive] = column
                n_alive += 1
        # negated, as a heap has its worst on top
        bounds[:] = 0
        for i in range(n_alive):
            weight = vector[alive[i]]
            extreme = highest[alive[i]] if weight > 0 else lowest[alive[i]]
            for b in range(blocks):
                bounds[b] -= weight * extreme[b]
        for b in range(blocks):
            order[b] = b
        for b in range(blocks // 2 - 1, -1, -1):
            _sink(bounds, order, b, blocks)
        excluded = exclude_ids
        if len(exclude_offsets):
            excluded = exclude_ids[exclude_offsets[query] : exclude_offsets[query + 1]]
        heap_scores, heap_ids = scores[query], ids[query]
        _empty(heap_scores, heap_ids)
        for left in range(blocks, 0, -1):
            if np.float32(-bounds[0] + margins[query]) < heap_scores[0]:
                break
            visited += 1
            b = order[0]
            bounds[0], order[0] = bounds[left - 1], order[left - 1]
            _sink(bounds, order, 0, left - 1)
            first = b * block
            height = min(block, n_items - first)
            sums[:height] = 0
            for i in range(n_alive):
                weight = vector[alive[i]]
                at = b * n_columns + alive[i]
                for entry in range(list_offsets[at], list_offsets[at + 1]):
                    sums[places[entry]] += weight * list_values[entry]
            if len(place_factors):
                for j in range(height):
                    sums[j] *= place_factors[first + j]
            _offer(
                sums[:height], items, first, margins[query], vector, excluded, allowed,
                values, columns, row_offsets, factors, heap_scores, heap_ids,
            )  # fmt: skip
        _sort(heap_scores, heap_ids)
    return visited


@compiled()
def search_blocks(
    queries, margins, exclude_offsets, exclude_ids, allowed,
    values, columns, row_offsets, factors,
    items, list_offsets, places, list_values, block, highest, lowest, place_factors,
    order, ids, scores,
):  # fmt: skip
    """Do the same as `search_index` for many queries, with blocks in one ``order`` for all.

    A block is made dense once. All queries whose heaps it may reach read it, in the columns where they are not 0.
    """
    n_queries, n_columns = queries.shape
    n_items = len(items)
    alive, n_alive = np.empty((n_queries, n_columns), np.int32), np.zeros(n_queries, np.int64)
    for query in range(n_queries):
        for column in range(n_columns):
            if queries[query, column] != 0:
                alive[query, n_alive[query]] = column
                n_alive[query] += 1
    dense, all_sums = np.empty((n_columns, block), np.float32), np.empty(block, np.float32)
    highest_here, lowest_here = np.empty(n_columns, np.float32), np.empty(n_columns, np.float32)
    empty_heaps(ids, scores)
    for b in order:
        first = b * block
        sums = all_sums[: min(block, n_items - first)]
        dense[:] = 0
        for column in range(n_columns):
            highest_here[column], lowest_here[column] = highest[column, b], lowest[column, b]
            at = b * n_columns + column
            for entry in range(list_offsets[at], list_offsets[at + 1]):
                dense[column, places[entry]] = list_values[entry]
        for query in range(n_queries):
            bound = np.float32(0)
            for i in range(n_alive[query]):
                column = alive[query, i]
                weight = queries[query, column]
                bound += weight * (highest_here[column] if weight > 0 else lowest_here[column])
            if np.float32(bound + margins[query]) < scores[query, 0]:
                continue
            sums[:] = 0
            for i in range(n_alive[query]):
                weight, of_column = queries[query, alive[query, i]], dense[alive[query, i]]
                for j in range(len(sums)):
                    sums[j] += weight * of_column[j]
            if len(place_factors):
                for j in range(len(sums)):
                    sums[j] *= place_factors[first + j]
            excluded = exclude_ids
            if len(exclude_offsets):
                excluded = exclude_ids[exclude_offsets[query] : exclude_offsets[query + 1]]
            _offer(
                sums, items, first, margins[query], queries[query], excluded, allowed,
                values, columns, row_offsets, factors, scores[query], ids[query],
            )  # fmt: skip
    sort_heaps(ids, scores)


@compiled()
def offer_scores(
    rough, first, queries, margins, exclude_offsets, exclude_ids, allowed,
    values, columns, row_offsets, factors,
    ids, scores,
):  # fmt: skip
    """Put the best of ``rough`` (n, m), scores of items from ``first`` on, into the heaps."""
    no_items = np.empty(0, np.int32)
    for query in range(len(queries)):
        excluded = exclude_ids
        if len(exclude_offsets):
            excluded = exclude_ids[exclude_offsets[query] : exclude_offsets[query + 1]]
        _offer(
            rough[query], no_items, first, margins[query], queries[query], excluded, allowed,
            values, columns, row_offsets, factors, scores[query], ids[query],
        )  # fmt: skip


@compiled()
def empty_heaps(ids, scores):
    """Make heaps of the rows of ``ids`` and ``scores`` that any item may enter."""
    for query in range(len(ids)):
        _empty(scores[query], ids[query])


@compiled()
def sort_heaps(ids, scores):
    """Sort the heaps, the best first; -1 and -inf where nothing entered."""
    for query in range(len(ids)):
        _sort(scores[query], ids[query])


@compiled()
def _offer(
    rough, items, first, margin, vector, excluded, allowed,
    values, columns, row_offsets, factors,
    heap_scores, heap_ids,
):  # fmt: skip
    dense = len(columns) == 0
    least = heap_scores[0] - margin
    for start in range(0, len(rough), 64):
        part = rough[start : start + 64]
        reached = 0
        for j in range(len(part)):
            reached += part[j] >= least
        if not reached:
            continue
        for j in range(len(part)):
            if part[j] < least:
                continue
            place = first + start + j
            item = np.int64(items[place]) if len(items) else place
            if len(allowed) and not allowed[item]:
                continue
            low, high = 0, len(excluded)
            while low < high:
                middle = (low + high) // 2
                if excluded[middle] < item:
                    low = middle + 1
                else:
                    high = middle
            if low < len(excluded) and excluded[low] == item:
                continue
            total = 0.0
            begin = row_offsets[item]
            for entry in range(begin, row_offsets[item + 1]):
                column = entry - begin if dense else np.int64(columns[entry])
                total += np.float64(vector[column]) * np.float64(values[entry])
            if len(factors):
                total *= np.float64(factors[item])
            score = np.float32(total) + np.float32(0)
            if score > heap_scores[0] or (score == heap_scores[0] and item < heap_ids[0]):
                heap_scores[0], heap_ids[0] = score, item
                _sink(heap_scores, heap_ids, 0, len(heap_scores))
                least = heap_scores[0] - margin


@compiled()
def _empty(heap_scores, heap_ids):
    heap_scores[:] = -np.inf
    heap_ids[:] = np.iinfo(np.int64).max


@compiled()
def _sort(heap_scores, heap_ids):
    for last in range(len(heap_scores) - 1, 0, -1):
        heap_scores[0], heap_scores[last] = heap_scores[last], heap_scores[0]
        heap_ids[0], heap_ids[last] = heap_ids[last], heap_ids[0]
        _sink(heap_scores, heap_ids, 0, last)
    for place in range(len(heap_scores)):
        if heap_scores[place] == -np.inf:
            heap_ids[place] = -1


@compiled()
def _sink(scores, ids, place, size):
    score, item = scores[place], ids[place]
    while True:
        child = 2 * place + 1
        if child >= size:
            break
        other = child + 1
        if other < size and (
            scores[other] < scores[child] or (scores[other] == scores[child] and ids[other] > ids[child])
        ):
            child = other
        if not (scores[child] < score or (scores[child] == score and ids[child] > item)):
            break
        scores[place], ids[place] = scores[child], ids[child]
        place = child
    scores[place], ids[place] = score, item
