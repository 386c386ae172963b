"""Noise on sums: clipping, and how much Gaussian noise a budget asks for."""

import math

import numpy as np

from simulations.inference.views import Array

_STEPS = 200


def clipped(vectors: Array, bound: float) -> Array:
    """Return `vectors` [..., statistics], those longer than `bound` shortened to it (Euclidean norm)."""
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors * np.minimum(1.0, bound / np.maximum(norms, 1e-12)))


def gaussian_noise(epsilon: float, delta: float) -> float:
    """Return the standard deviation of Gaussian noise for (epsilon, delta) in one round, for a clipping bound of 1.

    Two fleets are neighbours if one has a client more. Balle and Wang 2018, "Improving the Gaussian Mechanism for
    Differential Privacy", theorem 8: the smallest deviation that gives the guarantee.
    """
    low, high = 1e-3, 1e6
    for _ in range(_STEPS):
        middle = math.sqrt(low * high)
        if _delta(epsilon, middle) > delta:
            low = middle
        else:
            high = middle
    return high


def _delta(epsilon: float, deviation: float) -> float:
    """Return the delta of noise of this standard deviation at `epsilon`, for sensitivity 1."""
    first = _normal(0.5 / deviation - epsilon * deviation)
    return first - math.exp(epsilon) * _normal(-0.5 / deviation - epsilon * deviation)


def _normal(value: float) -> float:
    return 0.5 * math.erfc(-value / math.sqrt(2.0))
