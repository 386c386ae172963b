"""Minimize a convex quadratic with one kink a coordinate over x >= 0, exactly.

The problem is 1/2 x'Hx - b'x + sum_j s_j |x_j - k_j| over x >= 0. With k = 0 it is the non-negative weighted lasso,
with k > 0 the l1 deviation from k, and with s = 0 non-negative least squares or ridge: one solver serves them all.

Coordinate descent (Friedman, Hastie and Tibshirani, 2010) finds which coordinates move; an exact step then solves for
all of them at once and stops at the first coordinate that meets a bound or a kink, as active-set methods do (Lawson and
Hanson, 1974). Both only ever lower the objective. The end is decided by the optimality conditions, not by small steps.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

TOLERANCE = 1e-10
_ROUNDS = 1000
_SMALLEST_PIVOT = 1e-5
_FLAT = 1e-13


def optimality_violation(hessian: Array, linear: Array, slopes: Array, kinks: Array, x: Array) -> Array:
    """Return how far each coordinate of `x` [n] is from optimal: the distance from 0 to its subdifferential, [n].

    hessian [n, n] positive semi-definite, linear [n], slopes [n] >= 0, kinks [n] >= 0. Units of `linear`.
    """
    gradient = hessian @ x - linear
    lower = gradient + np.where(x > kinks, slopes, -slopes)
    upper = gradient + np.where(x >= kinks, slopes, -slopes)
    # At 0 the constraint x >= 0 lets the derivative be anything above.
    below = np.where(x > 0.0, np.maximum(lower, 0.0), 0.0)
    return np.asarray(np.maximum(below, np.maximum(-upper, 0.0)))


def minimize(hessian: Array, linear: Array, slopes: Array, kinks: Array, start: Array) -> Array:
    """Return the minimizer [n] over x >= 0, begun at `start` [n] >= 0.

    hessian [n, n] positive semi-definite, linear [n], slopes [n] >= 0, kinks [n] >= 0. Coordinates that the quadratic
    does not reach (diagonal 0) go to their kink, where their slope has its minimum. Stops when no coordinate violates
    its optimality condition by more than 1e-10 of the largest entry of `linear` and `slopes`, or after 1000 rounds,
    each of which lowers the objective.
    """
    reached = np.diag(hessian) > 0.0
    x = np.where(reached, start, kinks)
    tolerance = TOLERANCE * max(float(np.max(np.abs(linear), initial=0.0)), float(np.max(slopes, initial=0.0)))
    for _ in range(_ROUNDS):
        violators = np.flatnonzero((optimality_violation(hessian, linear, slopes, kinks, x) > tolerance) & reached)
        if violators.size == 0:
            break
        _sweep(hessian, linear, slopes, kinks, x, violators)
        x = _exact_steps(hessian, linear, slopes, kinks, x, reached, tolerance)
    return x


def _sweep(hessian: Array, linear: Array, slopes: Array, kinks: Array, x: Array, order: NDArray[np.int64]) -> None:
    gradient = hessian @ x - linear
    for j in order:
        curvature = hessian[j, j]
        target = x[j] - gradient[j] / curvature - kinks[j]
        shrunk = max(abs(target) - slopes[j] / curvature, 0.0)
        moved = max(kinks[j] + np.copysign(shrunk, target), 0.0)
        if moved != x[j]:
            gradient += hessian[:, j] * (moved - x[j])
            x[j] = moved


def _exact_steps(
    hessian: Array,
    linear: Array,
    slopes: Array,
    kinks: Array,
    x: Array,
    reached: NDArray[np.bool_],
    tolerance: float,
) -> Array:
    for _ in range(x.size):
        free = np.flatnonzero(reached & (x > 0.0) & ((x != kinks) | (slopes == 0.0)))
        if free.size == 0:
            break
        side = np.where(slopes[free] > 0.0, np.sign(x[free] - kinks[free]), 0.0)
        gradient = hessian[free] @ x - linear[free] + slopes[free] * side
        direction, longest = _direction(hessian[np.ix_(free, free)], gradient, tolerance)
        # The bound of a coordinate: its kink when it comes from above it or moves up to it, otherwise 0.
        from_above, up = side > 0.0, direction > 0.0
        bound = np.where(from_above | (up & (side < 0.0)), kinks[free], 0.0)
        meets = np.where(up, side < 0.0, direction < 0.0)
        lengths = np.full(free.size, np.inf)
        lengths[meets] = (bound[meets] - x[free][meets]) / direction[meets]
        first = int(np.argmin(lengths))
        length = min(longest, float(lengths[first]))
        if not np.isfinite(length):
            break  # flat to rounding: nothing to gain in this direction
        x = x.copy()
        x[free] = np.maximum(x[free] + length * direction, 0.0)
        if length < lengths[first]:
            break
        x[free[first]] = bound[first]
    return x


def _direction(hessian: Array, gradient: Array, tolerance: float) -> tuple[Array, float]:
    """Return the step to the minimum of the free coordinates and its length, infinite along a flat descent."""
    scale = 1.0 / np.sqrt(np.diag(hessian))
    correlations = hessian * np.outer(scale, scale)
    try:
        if np.min(np.diag(np.linalg.cholesky(correlations))) > _SMALLEST_PIVOT:
            return -scale * np.linalg.solve(correlations, scale * gradient), 1.0
    except np.linalg.LinAlgError:
        pass
    # Atoms that always go together leave directions without curvature; the penalty alone decides along them.
    values, vectors = np.linalg.eigh(correlations)
    coordinates = vectors.T @ (gradient * scale)
    flat = values <= _FLAT * values[-1]
    descent = vectors[:, flat] @ coordinates[flat]
    if np.max(np.abs(descent / scale), initial=0.0) > 0.1 * tolerance:
        return -scale * descent, np.inf
    return -scale * (vectors[:, ~flat] @ (coordinates[~flat] / values[~flat])), 1.0
