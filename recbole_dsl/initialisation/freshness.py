"""Whether a weight is fresh from an initialiser, or holds values that would be lost if it got others."""

from collections.abc import Mapping

import numpy as np
import torch
from scipy.special import ndtri
from torch import Tensor, nn

from recbole_dsl.sparse.deferred import DeferredTensor
from recbole_dsl.sparse.loading import was_loaded

# the largest eigenvalue of noise is further above where it is due, in its own scale, less than once in a million
# times (Tracy, Widom 1994)
_FAR = 9.0
# rows and columns that are looked at, at most
_MOST = 2048, 256
# entries from which on a structure would be seen
_FEWEST = 512
# distinct values that are too few for draws from a continuous distribution
_FEW_VALUES = 256


def pretrained_values(parameters: Mapping[str, nn.Parameter], padding: Mapping[str, int | None]) -> dict[str, str]:
    """Which of ``parameters`` are not fresh, and how that is known, as the end of a sentence.

    A parameter is fresh unless a state was loaded into it, it has a gradient, or it is not `is_noise`. One that is
    too small to tell counts as the others do.

    Args:
        padding: the row of each that may be zero, or None.
    """
    found, undecided, n_fresh = {}, [], 0
    for name, parameter in parameters.items():
        noise = is_noise(parameter, padding[name])
        if was_loaded(parameter):
            found[name] = "a state was loaded into it"
        elif parameter.grad is not None:
            found[name] = "it has a gradient"
        elif noise is None:
            undecided.append(name)
        elif noise:
            n_fresh += 1
        else:
            found[name] = "its entries are no independent random draws"
    if found and not n_fresh:
        found.update(dict.fromkeys(undecided, "the other weights are not fresh"))
    return found


def is_noise(values: Tensor, padding: int | None = None) -> bool | None:
    """Whether the entries of ``values`` (rows, ...) can be independent draws from one distribution, or all equal.

    Entries are replaced by the normal scores of their ranks, so that their distribution does not matter; so are
    their distances from the median. The largest singular value of both matrices must be near the edge that random
    matrices have (Johnstone 2001). Of large matrices a sample is looked at.

    Args:
        padding: a row that is left out.

    Returns:
        None if there are too few entries to tell.
    """
    if isinstance(values, DeferredTensor):
        if values.root.made is None:
            # its record has draws and constants only
            return True
        values = values.values()
    some = _sample(values.detach(), padding)
    if some.size == 0 or not np.isfinite(some).all():
        return False if some.size else None
    filled = some.any(1)
    if 2 * filled.sum() >= len(some):
        # of some rows models make padding, without a padding_idx that says so
        some = some[filled]
    n_distinct = len(np.unique(some))
    if n_distinct == 1:
        return True
    if n_distinct <= min(some.size // 4, _FEW_VALUES):
        return False
    if min(some.shape) < 2:
        return None
    if any(_has_structure(matrix) for matrix in (some, np.abs(some - np.median(some)))):
        return False
    return True if some.size >= _FEWEST else None


def _has_structure(matrix: np.ndarray) -> bool:
    """Whether the normal scores of the entries have a larger singular value than noise has."""
    # equal entries get their ranks in random order
    order = np.random.default_rng(0).permutation(matrix.size)
    order = order[np.argsort(matrix.ravel()[order], kind="stable")]
    scores = np.empty(matrix.size)
    scores[order] = ndtri((np.arange(matrix.size) + 0.5) / matrix.size)
    scores = scores.reshape(matrix.shape)
    n, m = (max(matrix.shape) - 1) ** 0.5, min(matrix.shape) ** 0.5
    scale = (n + m) * (1 / n + 1 / m) ** (1 / 3)
    products = scores.T @ scores if len(scores) > scores.shape[1] else scores @ scores.T
    return (np.linalg.eigvalsh(products)[-1] - (n + m) ** 2) / scale > _FAR


def _sample(values: Tensor, padding: int | None) -> np.ndarray:
    """Some rows and columns, float64."""
    draw = np.random.default_rng(0)
    rows = np.delete(np.arange(len(values)), [] if padding is None else padding)
    for axis, most in enumerate(_MOST):
        kept = np.arange(values.shape[1]) if axis else rows
        if len(kept) > most:
            kept = np.sort(draw.choice(kept, most, replace=False))
        values = values.index_select(axis, torch.from_numpy(kept).to(values.device)).flatten(1)
    return values.double().cpu().numpy()
