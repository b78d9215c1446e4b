"""What recommendations are worth on data that was held back."""

import numpy as np
from numpy.typing import NDArray

from recbole_dsl.serving.lists import Lists

_K = 10


def ndcg_at_10(ids: NDArray[np.int64], wanted: Lists) -> float:
    """The mean over users of the normalised discounted cumulative gain of ten items, as RecBole has it.

    Args:
        ids: (n, up to 10) what each user was recommended, the best first; -1 for nothing.
        wanted: n lists, none empty: what each had, distinct.
    """
    discounts = 1 / np.log2(np.arange(2, _K + 2))
    most = int(max(ids.max(initial=0), wanted.ids.max(initial=0))) + 1
    pairs = np.sort(wanted.owners() * most + wanted.ids)
    found = np.arange(len(ids))[:, None] * most + ids
    places = np.searchsorted(pairs, found).clip(max=len(pairs) - 1)
    hits = (pairs[places] == found) & (ids >= 0)
    best = np.cumsum(discounts)[np.diff(wanted.offsets).clip(max=_K) - 1]
    return float(((hits * discounts[: ids.shape[1]]).sum(1) / best).mean())
