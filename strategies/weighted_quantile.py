"""Quantiles of columns in which each entry has its own weight."""

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
# The sum of weights is rounded: a share that is met but for this much is met.
_ROUNDING = 1e-12


def weighted_quantile(values: Vector, weights: Vector, share: float) -> Vector:
    """Return for each column the smallest value at or below which `share` of the weight lies.

    values, weights: [rows, columns], weights >= 0. share: in (0, 1]. Returns [columns]; where all weights are 0 the
    smallest value. This is the inverse of the weighted distribution function: no interpolation.
    """
    order = np.argsort(values, axis=0, kind="stable")
    cumulative = np.cumsum(np.take_along_axis(weights, order, axis=0), axis=0)
    enough = (cumulative >= share * (1.0 - _ROUNDING) * cumulative[-1]) & (cumulative > 0.0)
    chosen = np.take_along_axis(order, enough.argmax(axis=0)[None], axis=0)
    return np.asarray(np.take_along_axis(values, chosen, axis=0)[0], dtype=np.float64)


def weighted_median(values: Vector, weights: Vector) -> Vector:
    """Return for each column the middle between its lower and its upper weighted median, shapes as above."""
    lower = weighted_quantile(values, weights, 0.5)
    upper = -weighted_quantile(-values, weights, 0.5)
    return lower + (upper - lower) / 2.0
