"""What noise costs: zero-concentrated differential privacy adds up, and is told as epsilon and delta.

Neighbouring relation: **zero-out of one client**. Two runs are neighbours if in one of them all contributions of one
client are replaced by zero, that is by "as the plan says"; how many clients take part, and who, is known in both. The
sensitivity of a sum is then the clipping norm itself. A round costs rho = sensitivity^2 / (2 variance) (Bun and Steinke
2016, arXiv 1605.02065; for discrete noise Canonne et al. 2020, arXiv 2004.00010, theorem 14); rhos of the rounds that a
client answered add up. No round is made cheaper for the chance of not having been drawn: whoever runs the server knows
who took part.
"""

import math
from functools import lru_cache

# Orders at which the conversion is tried first, then refined between the neighbours of the best.
_ORDERS = tuple(1.0 + 10.0 ** (k / 20 - 4) for k in range(181))
_REFINEMENTS, _HALVINGS = 30, 60
_GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0


def epsilon_of(rho: float, delta: float) -> float:
    """Return the epsilon of rho-zCDP at `delta`; 0 for rho 0, infinite for an infinite rho.

    The smallest over orders a > 1 of rho a + log(1 - 1/a) - log(delta a) / (a - 1) (Canonne et al. 2020, proposition
    12), every one of which is a valid bound. Raises ValueError for a negative rho or a delta outside (0, 1).
    """
    if not 0.0 < delta < 1.0 or not rho >= 0.0:
        raise ValueError("rho must be 0 or more, and delta between 0 and 1")
    if rho == 0.0 or math.isinf(rho):
        return rho
    best = min(range(len(_ORDERS)), key=lambda k: _bound(rho, delta, _ORDERS[k]))
    low, high = _ORDERS[max(best - 1, 0)], _ORDERS[min(best + 1, len(_ORDERS) - 1)]
    found = _bound(rho, delta, _ORDERS[best])
    for _ in range(_REFINEMENTS):
        left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        at_left, at_right = _bound(rho, delta, left), _bound(rho, delta, right)
        found = min(found, at_left, at_right)
        low, high = (low, right) if at_left < at_right else (left, high)
    return max(found, 0.0)


@lru_cache(maxsize=64)
def rho_of(epsilon: float, delta: float) -> float:
    """Return the largest rho whose epsilon at `delta` is at most `epsilon`. Raises ValueError."""
    if not (math.isfinite(epsilon) and epsilon > 0.0):
        raise ValueError("epsilon must be a finite number above 0")
    low, high = 0.0, 1.0
    while epsilon_of(high, delta) <= epsilon:
        high *= 2.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2.0
        low, high = (middle, high) if epsilon_of(middle, delta) <= epsilon else (low, middle)
    return low


def gaussian_rho(sensitivity: float, variance: float) -> float:
    """Return the rho of (discrete) Gaussian noise of `variance` on a vector of L2 `sensitivity`."""
    return sensitivity**2 / (2.0 * variance)


def distributed_rho(sensitivity: float, variance: float, *, shares: int, entries: int) -> float:
    """Return the rho of a sum of `shares` discrete Gaussians of `variance` each, on a vector of L2 `sensitivity`.

    Such a sum is not quite a discrete Gaussian. Kairouz, Liu and Steinke 2021 (arXiv 2102.06387), theorem 1: with
    tau = 10 sum_{k=1}^{shares - 1} exp(-2 pi^2 variance k / (k + 1)), it is e^2 / 2 for e the smaller of
    sqrt(sensitivity^2 / (shares variance) + tau entries / 2) and sensitivity / sqrt(shares variance) + tau
    sqrt(entries).
    """
    tau = 10.0 * sum(math.exp(-2.0 * math.pi**2 * variance * k / (k + 1)) for k in range(1, shares))
    signal = sensitivity**2 / (shares * variance)
    first = signal + tau * entries / 2.0
    return min(first, (math.sqrt(signal) + tau * math.sqrt(entries)) ** 2) / 2.0


def _bound(rho: float, delta: float, order: float) -> float:
    return rho * order + math.log1p(-1.0 / order) - (math.log(delta) + math.log(order)) / (order - 1.0)
