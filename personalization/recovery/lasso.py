"""Non-negative weighted lasso."""

from collections.abc import Sequence

import numpy as np

from personalization.recovery.base import Array, Solver
from personalization.recovery.quadratic import minimize


class Lasso(Solver):
    """Minimize 1/2m ||A x - y||^2 + strength * sum_j weights_j x_j over x >= 0 (Tibshirani, 1996).

    The maximal strength is max_j (A'y/m)_j / weights_j, from which on x is 0. The default strength is weak: in
    simulated devices (48 atoms, 12 to 48 probes, sensitivities over two orders of magnitude) 0.001 to 0.003 were the
    best fixed ones; stronger ones lose the small atoms.
    """

    name = "lasso"
    strengths = tuple(10.0 ** (-k / 6) for k in range(19))
    default_strength = 10.0 ** (-15 / 6)

    def __init__(self, weights: Array, prior: Array | None = None) -> None:
        """Keep the penalty weights [atoms], all above 0, and the prior (see `Solver`), which only fills gaps."""
        super().__init__(prior)
        self.weights = weights

    def maximal_strength(self, design: Array, measurements: Array) -> float:
        """Return the smallest strength (nats) at which every sensitivity is 0."""
        correlation = design.T @ measurements / len(measurements)
        return max(float(np.max(correlation / self.weights)), 0.0)

    def path(self, design: Array, measurements: Array, strengths: Sequence[float]) -> Array:
        """See `Solver.path`; the path starts at x = 0."""
        probes = len(measurements)
        hessian, linear = design.T @ design / probes, design.T @ measurements / probes
        maximum = self.maximal_strength(design, measurements)
        zeros = np.zeros_like(self.weights)
        solutions, x = [], zeros
        for strength in strengths:
            x = minimize(hessian, linear, strength * maximum * self.weights, zeros, x)
            solutions.append(x)
        return np.stack(solutions)


def lasso_weights(prior: Array) -> Array:
    """Return penalty weights [atoms]: the more sensitive the fleet finds an atom (nats, > 0), the less it is penalized.

    The adaptive lasso (Zou, 2006) with exponent 1/2. In the simulations above it lowered the error of 24 probes of 4
    layers by a tenth against equal weights and never raised it by more than 1 %; exponent 1 did worse.
    """
    return np.asarray(np.sqrt(prior.mean() / prior))
