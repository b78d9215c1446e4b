"""What Adam does to a weight during steps without a gradient, in closed form."""

from dataclasses import dataclass, field
from functools import cache

import numpy as np
import torch
from torch import Tensor

# a moment that has decayed to this share no longer counts
_FORGOTTEN = 1e-10
_DEGREES = (2, 3, 4, 6, 8, 10, 12)
# relative error of the polynomials; float32 resolves less
_ACCURACY = 5e-8
# steps whose polynomials are computed together, at little more than the cost of one
_CHUNK = 64
_KEPT = 2**14


@dataclass
class AdamTail:
    """Adam (Kingma & Ba 2015, Alg. 1) without gradients.

    At each step t a weight falls by ``lr m_t / (1 - beta1^t) / (sqrt(v_t / (1 - beta2^t)) + eps)``, while m_t and
    v_t decay. After step s it falls by ``lr m_s F_s(sqrt(v_s))`` in all, where F_s is a sum of some 200 terms. As
    consecutive divisors are nearly equal, ``F_s(x) = P(r) / d`` to float32's resolution, where ``d = b x + eps``
    and ``r = b x / d``, with a mean ``b`` and a polynomial ``P`` of low degree that depend on s alone. The fall
    between two steps is the difference of two such tails.

    Attributes:
        lr, beta1, beta2, eps: as in ``torch.optim.Adam``; eps is above 0.
    """

    lr: float
    beta1: float
    beta2: float
    eps: float
    _made: dict[int, tuple[float, tuple[float, ...]]] = field(default_factory=dict, repr=False, compare=False)

    def is_accurate(self) -> bool:
        """Whether a polynomial is accurate enough from the first step on."""
        return self.eps > 0 and 0 < self.beta1 < self.beta2**0.5 < 1 and _degree(self._terms([1])) is not None

    @property
    def horizon(self) -> int:
        """Steps after which the first moment is forgotten."""
        return int(np.ceil(np.log(_FORGOTTEN) / np.log(self.beta1)))

    def after(self, step: int, first: Tensor, root: Tensor) -> Tensor:
        """By how much weights still fall after ``step`` without further gradients.

        Args:
            first: (n,) the first moment after ``step``.
            root: (n,) the root of the second.
        """
        mean, polynomial = self._polynomial(step)
        scaled = root * mean
        divisor = scaled + self.eps
        ratio = scaled.div_(divisor)
        total = torch.full_like(ratio, polynomial[-1])
        for coefficient in polynomial[-2::-1]:
            total.mul_(ratio).add_(coefficient)
        return total.mul_(first).div_(divisor).mul_(self.lr)

    def decays(self, steps: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """Factors of both moments after 0, 1, ... ``steps`` steps: (steps + 1,) each, of the type of ``like``."""
        powers = np.arange(steps + 1)
        first = self.beta1**powers
        first[first < _FORGOTTEN] = 0
        return tuple(torch.from_numpy(decay).to(like) for decay in (first, self.beta2**powers))

    def _polynomial(self, step: int) -> tuple[float, tuple[float, ...]]:
        if step not in self._made:
            if len(self._made) > _KEPT:
                self._made.clear()
            steps = np.arange(step, step + _CHUNK)
            means, weights, shares = self._terms(steps)
            degree = _degree((means[:1], weights[:1], shares[:1])) or _DEGREES[-1]
            nodes, to_coefficients = _nodes(degree)
            coefficients = _sums(weights, shares, nodes) @ to_coefficients.T
            for one, mean, some in zip(steps.tolist(), means.tolist(), coefficients.tolist()):
                self._made[one] = mean, tuple(some)
        return self._made[step]

    def _terms(self, steps: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The mean divisor of each step; (steps, terms): the weight of each term, and its relative error."""
        later = np.arange(1, self.horizon + 1)
        at = np.asarray(steps)[:, None] + later
        weights = self.beta1**later / (1 - self.beta1**at)
        divisors = np.sqrt(self.beta2**later / (1 - self.beta2**at))
        means = (weights * divisors).sum(1) / weights.sum(1)
        return means, weights, 1 - divisors / means[:, None]


def _sums(weights: np.ndarray, shares: np.ndarray, ratios: np.ndarray) -> np.ndarray:
    """(steps, ratios): the sum of the terms at each of the ``ratios``."""
    return np.stack([(weights / (1 - shares * ratio)).sum(1) for ratio in ratios], 1)


def _degree(terms: tuple[np.ndarray, np.ndarray, np.ndarray]) -> int | None:
    """The lowest degree with which a polynomial is accurate, or None."""
    _, weights, shares = terms
    ratios = np.linspace(0, 1, 41)
    exact = _sums(weights, shares, ratios)
    for degree in _DEGREES:
        nodes, to_coefficients = _nodes(degree)
        made = np.vander(ratios, degree + 1, increasing=True) @ (to_coefficients @ _sums(weights, shares, nodes).T)
        if np.abs(made.T / exact - 1).max() < _ACCURACY:
            return degree
    return None


@cache
def _nodes(degree: int) -> tuple[np.ndarray, np.ndarray]:
    """Chebyshev nodes in [0, 1], and the matrix that maps values there to a polynomial's coefficients."""
    nodes = 0.5 + 0.5 * np.cos(np.pi * (np.arange(degree + 1) + 0.5) / (degree + 1))
    return nodes, np.linalg.inv(np.vander(nodes, increasing=True))
