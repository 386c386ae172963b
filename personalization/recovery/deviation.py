"""Sparse deviation from the fleet's prior."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from personalization.errors import UserError
from personalization.recovery.base import Array, Solver
from personalization.recovery.quadratic import minimize
from personalization.recovery.scaling import common_scale, floored_sensitivity, pull_weights
from personalization.sensing.prior import Prior

Penalty = Literal["l1", "l2"]

# Between the two levels of a layer, over 90 clients of the bundled data: 0.53 to 0.64.
_LEVEL_CORRELATION = 0.5


class Deviation(Solver):
    """Recover x = c * prior * (1 + d): a common scale c (`common_scale`) and a penalized relative deviation d >= -1.

    Minimizes 1/2m ||V^(-1/2) (A x - y)||^2 + strength * (sum_j weights_j |d_j| for l1, d'Pd / 2 for l2), with
    `scaling.pull_weights`, P of `joint_pull` and V = diag(A prior), scaled to mean 1: the error of a probe grows as the
    root of what is expected of it. With equal weights a relative deviation of a small atom costs nothing, and an exact
    measurement of it is lost. The maximal strength is, for l1, the smallest at which d is 0; for l2, where d is never
    quite 0, the largest curvature of the first term in any d_j, at which the atom seen best goes half of its way
    (values above 1 mean something).

    l2 is the default. Over 30 simulated settings (48 atoms, log-normal sensitivities; priors off by 20 or 60 % at every
    atom; 6 to 48 probes of 1 to 7 layers; noise of 5 to 30 %), each penalty at its best strength, l2 had the lower
    error in 22, l1 in 1: fleet priors are a little wrong everywhere, not very wrong in a few places.
    Sensitivities are sparse; their deviations seldom are. The default strength of l1 was near the best fixed one
    there; that of l2, 0.07, and the correlation of levels, 0.5, were chosen on the bundled ViT, by the loss of the cut
    that follows, with 6 to 14 probes of one layer.
    """

    name = "deviation"

    def __init__(self, prior: Prior, *, penalty: Penalty = "l2", levels: int = 1) -> None:
        """Keep a usable prior (`scaling.is_usable`) of so many `levels` a layer; they follow each other.

        Raises UserError for a penalty other than l1 and l2.
        """
        if penalty not in ("l1", "l2"):
            raise UserError(f"penalty {penalty!r}: expected l1 or l2")
        base = floored_sensitivity(prior)
        super().__init__(base)
        self.base = base
        self.weights = pull_weights(prior)
        self.penalty = penalty
        self.pull = np.diag(self.weights) if penalty == "l1" else joint_pull(self.weights, levels)
        # l2 needs strengths above 1 to come close to the prior.
        highest, default = (1.5, 8) if penalty == "l2" else (0.0, 3)
        self.strengths = tuple(10.0 ** (highest - k / 3) for k in range(19 if penalty == "l2" else 10))
        self.default_strength = self.strengths[default]

    def maximal_strength(self, hessian: Array, linear: Array) -> float:
        """Return the maximal strength (nats^2), where 1/2 z'Hz - b'z is the quadratic part in z = 1 + d.

        hessian [atoms, atoms], linear [atoms], nats^2.
        """
        if self.penalty == "l2":
            return float(np.max(np.diag(hessian)))
        return float(np.max(np.abs(linear - hessian.sum(axis=1)) / self.weights))

    def path(self, design: Array, measurements: Array, strengths: Sequence[float]) -> Array:
        """See `Solver.path`; the path starts at d = 0."""
        base = self.base * common_scale(design, measurements, self.base)
        errors, probes = expected_errors(design @ base), len(measurements)
        scaled, target = design * base / errors[:, None], measurements / errors
        hessian, linear = scaled.T @ scaled / probes, scaled.T @ target / probes
        maximum = self.maximal_strength(hessian, linear)
        ones = np.ones_like(base)
        solutions, z = [], ones
        for strength in strengths:
            pull = strength * maximum * self.pull
            if self.penalty == "l2":
                z = minimize(hessian + pull, linear + pull.sum(axis=1), np.zeros_like(ones), ones, z)
            else:
                z = minimize(hessian, linear, np.diag(pull), ones, z)
            solutions.append(base * z)
        return np.stack(solutions)

    def complete(self, sensitivity: Array, design: Array, measurements: Array) -> Array:
        """Return `sensitivity` as it is: the penalty has already taken what is missing from the prior."""
        return sensitivity


def joint_pull(weights: Array, levels: int) -> Array:
    """Return the matrix P [atoms, atoms] of the l2 penalty d'Pd / 2 for `weights` [atoms] > 0 of `levels` a layer.

    P is the inverse of W^(-1/2) C W^(-1/2), where C correlates the deviations of the levels of one layer: a device to
    which a layer matters more than to the fleet finds so at each level. With one level P is diag(weights).
    """
    together = np.kron(np.eye(len(weights) // levels), np.ones((levels, levels)))
    correlation = _LEVEL_CORRELATION * together + (1.0 - _LEVEL_CORRELATION) * np.eye(len(weights))
    roots = np.sqrt(weights)
    return np.asarray(np.linalg.inv(correlation) * np.outer(roots, roots))


def expected_errors(expected: Array) -> Array:
    """Return the relative size of each probe's error [probes]: the root of what is `expected` [probes] of it (nats).

    On average their squares are 1. A probe of which nothing is expected gets 1.
    """
    positive = expected > 0.0
    if not positive.any():
        return np.ones_like(expected)
    return np.sqrt(np.where(positive, expected / expected[positive].mean(), 1.0))
