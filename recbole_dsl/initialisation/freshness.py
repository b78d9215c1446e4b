"""Whether the weights of a model are fresh from an initialiser, or values that were given to it."""

from collections.abc import Mapping

import numpy as np
import torch
from scipy.stats import chi2, norm
from torch import Tensor, nn

from recbole_dsl.sparse.deferred import DeferredTensor
from recbole_dsl.sparse.provenance import brings_values

# how rarely one of the tests takes noise for structure
_FALSE_ALARM = 1e-8
# the largest eigenvalue of noise is further from where it is due, in its own scale, as rarely (Tracy, Widom 1994)
_FAR = 9.0
# rows and columns that are looked at, at most
_MOST = 2048, 256
# entries from which on a structure would be seen
_FEWEST = 512
_OF_BATCHES = (
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm),
    *(nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d),
)
_NORMS = nn.LayerNorm, *_OF_BATCHES, nn.GroupNorm, nn.RMSNorm
# distinct values that are too few for draws from a continuous distribution
_FEW_VALUES = 256


def given_values(
    model: nn.Module, parameters: Mapping[str, nn.Parameter], padding: Mapping[str, int | None]
) -> dict[str, str]:
    """Which of ``parameters`` hold values that were given to them, and how it is known, as the end of a sentence.

    A parameter was given its values if that was seen when the model was made, if it has a gradient, or if it is
    not `is_noise`; all of them were, if the norms, biases or running means beside them have moved from where they
    begin. What is too small to tell is like the others, if these all were given theirs.

    Args:
        padding: the row of each that may be zero, or None.
    """
    if _has_moved(model):
        return dict.fromkeys(parameters, "the model is trained")
    found, untold, n_fresh = {}, [], 0
    for name, parameter in parameters.items():
        if brings_values(parameter):
            found[name] = "it got them when the model was made"
        elif parameter.grad is not None:
            found[name] = "it has a gradient"
        else:
            noise = True if _is_recorded(parameter) else is_noise(parameter.detach(), padding[name])
            if noise is None:
                untold.append(name)
            elif noise:
                n_fresh += 1
            else:
                found[name] = "they are no random draws"
    if found and not n_fresh:
        found.update(dict.fromkeys(untold, "the other weights were given theirs"))
    return found


def is_noise(values: Tensor, padding: int | None = None) -> bool | None:
    """Whether the entries of ``values`` (rows, ...) can be independent draws from one distribution, or all equal.

    Entries are replaced by the normal scores of their ranks, so that their distribution does not matter; so are
    their distances from the median. Both matrices are then to be noise: the means of rows and of columns within
    what the chi-square distribution allows, and the largest singular value at the edge that random matrices have
    (Johnstone 2001). A matrix with few distinct values, as of zeros and ones, is none. Noise is mistaken for
    something else less than once in a million times. Of large matrices a sample is looked at.

    Args:
        padding: a row that is left out.

    Returns:
        None if there are too few entries to tell.
    """
    some = _sample(values, padding)
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
    distance = np.abs(some - np.median(some))
    if any(_has_structure(_normal_scores(matrix)) for matrix in (some, distance)):
        return False
    return True if some.size >= _FEWEST else None


def _has_structure(scores: np.ndarray) -> bool:
    for axis in (0, 1):
        means = scores.mean(axis)
        if chi2.sf(scores.shape[axis] * np.square(means).sum(), len(means)) < _FALSE_ALARM:
            return True
    n, m = (max(scores.shape) - 1) ** 0.5, min(scores.shape) ** 0.5
    scale = (n + m) * (1 / n + 1 / m) ** (1 / 3)
    return (np.linalg.norm(scores, 2) ** 2 - (n + m) ** 2) / scale > _FAR


def _normal_scores(matrix: np.ndarray) -> np.ndarray:
    """Normal quantiles in the order of the entries; equals are in random order."""
    order = np.lexsort((np.random.default_rng(0).random(matrix.size), matrix.ravel()))
    scores = np.empty(matrix.size)
    scores[order] = norm.ppf((np.arange(matrix.size) + 0.5) / matrix.size)
    return scores.reshape(matrix.shape)


def _sample(values: Tensor, padding: int | None) -> np.ndarray:
    """Some rows and columns, float64."""
    if isinstance(values, DeferredTensor):
        values = values.values()
    draw = np.random.default_rng(0)
    rows = np.delete(np.arange(len(values)), [] if padding is None else padding)
    for axis, size in enumerate(_MOST):
        axis_is_rows = axis == 0
        kept = rows if axis_is_rows else np.arange(values.shape[1:].numel())
        if len(kept) > size:
            kept = np.sort(draw.choice(kept, size, replace=False))
        index = torch.from_numpy(kept).to(values.device)
        values = values.index_select(0, index).reshape(len(kept), -1) if axis_is_rows else values[:, index]
    return values.double().cpu().numpy()


def _is_recorded(parameter: nn.Parameter) -> bool:
    """Whether it is deferred, and so initialised in a way that is known."""
    return isinstance(parameter, DeferredTensor) and parameter.root.made is None


def _has_moved(model: nn.Module) -> bool:
    """Whether norms, biases or running means are where no initialiser puts them."""
    for module in model.modules():
        batches = getattr(module, "num_batches_tracked", None)
        if isinstance(batches, Tensor) and batches.numel() == 1 and batches > 0:
            return True
        own = getattr(module, "_parameters", {})
        if any(own.get(name) is None or _is_recorded(own[name]) for name in ("weight", "bias")):
            continue
        weight, bias = own["weight"].detach(), own["bias"].detach()
        # some initialise norms and biases as all else, around zero
        if isinstance(module, _NORMS) and not _is_constant(weight) and (weight.mean() - 1).abs() < 0.5:
            return True
        if isinstance(module, nn.Linear) and not _is_constant(bias):
            # biases that are drawn fill this bound, or are drawn like the weights, which are uniform then too
            share = float(bias.abs().max()) * module.in_features**0.5
            is_uniform = weight.abs().max() < 2 * weight.square().mean().sqrt()
            if not is_uniform and not (_FALSE_ALARM ** (1 / len(bias)) < share < 1.0001):
                return True
    return False


def _is_constant(vector: Tensor) -> bool:
    vector = vector.detach().reshape(-1)
    return vector.numel() == 0 or bool((vector == vector[0]).all())
