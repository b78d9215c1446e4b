"""The best items of users from a product of vectors, in the order of the scores that RecBole computes."""

import numpy as np
import torch
from torch import Tensor, nn

from recbole_dsl.compiling import compiled_loops
from recbole_dsl.evaluation.pairs import Pairs, is_among
from recbole_dsl.evaluation.product import LARGEST, Operands, Rounding
from recbole_dsl.serving.top_k import ExactTopK
from recbole_dsl.sparse.modules import sparse_weights

# the compiled search is worth loading or compiling from this number of scores on
_WORTH_COMPILING = 2**26
# scores held at once: 4 MB, which stay in a processor's cache from the product to the search
SCORES = 2**20
_SCORES_ON_GPU = 2**26
# from so many rows on, the bits of a product do not depend on the number of rows
_ROWS = 8


class Search:
    """Finds the ``k`` best items of each user, as ``torch.topk`` would in the scores that RecBole computes.

    Scores are exact, or summed in float32 in any order. RecBole's float32 may order two close scores differently.
    If a metric could tell, RecBole's own product is computed, with as many users as in its batches, on which
    rounding depends. So ties are decided as RecBole decides them.

    Args:
        rows: users in a batch of RecBole.
        in_order: whether the order of all ``k`` items matters, rather than that of positive and other items only.
        n_users: of the whole evaluation.
    """

    def __init__(self, model: nn.Module, k: int, rows: int, in_order: bool, n_users: int):
        self._model, self._k, self._rows, self._in_order, self._n_users = model, k, rows, in_order, n_users
        self._rounding = Rounding()
        self._exact: ExactTopK | None = None

    def top(self, operands: Operands, left_out: Pairs, positive: Pairs) -> Tensor | None:
        """(n, k) int64: the best items of each user; None if scores may be NaN or too large for float32.

        Args:
            left_out: items that a user does not get, beside the padding, item 0; by ascending users.
            positive: the positive items.
        """
        users, items = operands
        if self._rounding.take(items):
            self._exact = self._compiled(items)
        margins = self._rounding.margins(operands)
        if margins is None:
            return None
        ids, scores = self._by_loops(users, left_out) if self._exact else self._by_blocks(operands, left_out)
        others = margins if self._in_order else _others(operands, positive, ids)
        open_ = undecided(scores, is_among(ids, positive), others, margins, self._in_order)
        ids = ids[:, : self._k].contiguous()
        self._decide(ids, open_, operands, left_out)
        return ids

    def _compiled(self, items: Tensor) -> ExactTopK | None:
        is_worth = items.device.type == "cpu" and self._n_users * items.shape[1] >= _WORTH_COMPILING
        if is_worth and self._rounding.longest < LARGEST and compiled_loops("recbole_dsl.serving.top_k_compiled"):
            return _exact_search(self._model, items)
        return None

    def _by_loops(self, users: Tensor, left_out: Pairs) -> tuple[Tensor, Tensor]:
        n_items = self._exact.n_items
        first = np.arange(len(users) + 1) * n_items
        keys = np.sort(np.concatenate([first[:-1], left_out.keys(n_items).numpy()]))
        offsets = np.searchsorted(keys, first)
        ids, scores = self._exact.search(users.numpy(), self._k + 1, (offsets, keys % n_items))
        # the padding is never a positive item
        return torch.from_numpy(ids).clamp_(min=0), torch.from_numpy(scores)

    def _by_blocks(self, operands: Operands, left_out: Pairs) -> tuple[Tensor, Tensor]:
        users, items = operands
        rows = max(1, (SCORES if users.device.type == "cpu" else _SCORES_ON_GPU) // items.shape[1])
        parts = []
        for first in range(0, len(users), rows):
            parts.append(torch.topk(_scores(operands, left_out, first, first + rows), self._k + 1))
        return torch.cat([part.indices for part in parts]), torch.cat([part.values for part in parts])

    def _decide(self, ids: Tensor, undecided: Tensor, operands: Operands, left_out: Pairs) -> None:
        rows = min(self._rows, max(_ROWS, SCORES // operands.items.shape[1]))
        # RecBole's last batch may be smaller; if its batches are larger than ours, every one of ours is full
        last = len(ids) if rows == self._rows else max(0, len(ids) - rows)
        # products with vectors of zeros are zeros, however they are summed
        nothing = Operands(operands.users[:, :0], operands.items[:0])
        for batch in torch.unique(undecided.nonzero()[:, 0] // rows).tolist():
            first = min(batch * rows, last)
            here = slice(first, first + rows)
            is_zero = not bool(operands.users[here][undecided[here]].any())
            factors = nothing if is_zero else operands
            top = torch.topk(_scores(factors, left_out, here.start, here.stop), self._k)
            ids[here] = torch.where(undecided[here, None], top.indices, ids[here])


def undecided(scores: Tensor, hits: Tensor, others: Tensor, margins: Tensor | float, in_order: bool) -> Tensor:
    """(n,) bool: whether metrics of the best k items could change if scores are off by ``margins`` together.

    Args:
        scores: (n, k + 1), descending.
        hits: (n, k + 1) bool, which of the items are positive.
        others: (n,), the highest score of a positive item that is not among these; -inf if there is none.
        margins: of each user, (n,).
        in_order: whether the order of all items matters, rather than that of positive and other items only.
    """
    near = scores[:, 1:] >= scores[:, :-1] - (margins[:, None] if isinstance(margins, Tensor) else margins)
    if in_order:
        return near.any(1)
    mixed = (near & (hits[:, 1:] != hits[:, :-1])).any(1)
    # of what comes after the last item, only the positive ones are known
    at_end = near[:, -1] & hits[:, -2]
    return mixed | at_end | ((others > -torch.inf) & (others >= scores[:, -2] - margins))


def _others(operands: Operands, positive: Pairs, ids: Tensor) -> Tensor:
    """(n,): the highest score of a user's positive items that are not among ``ids`` (n, k + 1)."""
    positive = positive.distinct()
    found = Pairs(torch.arange(len(ids), device=ids.device).repeat_interleave(ids.shape[1]), ids.flatten())
    n_items = operands.items.shape[1]
    is_other = torch.isin(positive.keys(n_items), found.keys(n_items), invert=True)
    users, items = positive.users[is_other], positive.items[is_other]
    scores = (operands.users[users] * operands.items.t()[items]).sum(1)
    return scores.new_full((len(ids),), -torch.inf).scatter_reduce_(0, users, scores, "amax")


def _scores(operands: Operands, left_out: Pairs, first: int, stop: int) -> Tensor:
    """(users, n_items): the scores that RecBole ranks for the users from ``first`` to ``stop``."""
    scores = torch.mm(operands.users[first:stop], operands.items)
    scores[:, 0] = -torch.inf
    start, end = torch.searchsorted(left_out.users, torch.tensor([first, stop], device=scores.device)).tolist()
    scores[left_out.users[start:end] - first, left_out.items[start:end]] = -torch.inf
    return scores


def _exact_search(model: nn.Module, items: Tensor) -> ExactTopK:
    for weight in sparse_weights(model).values():
        if weight.nnz < weight.numel and weight.is_kept_as(items.t()):
            arrays = (array.detach().numpy() for array in (weight.values, weight.columns, weight.row_offsets))
            search = ExactTopK(*arrays, weight.n_columns)
            break
    else:
        search = ExactTopK.of_dense(items.t().contiguous().numpy())
    search.prepare()
    return search
