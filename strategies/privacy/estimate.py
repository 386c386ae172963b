"""What can be believed of noisy sums: the posterior mean under a public guess of how sensitivities are built.

Sensitivities of a transformer's layers are alike: all of them, those of attention and of MLP layers, those at one
level, the levels of one layer. A Gaussian prior over atoms with these components, and observations whose noise is
known because it was added on purpose, have a closed-form posterior (a Kalman filter without motion). Under much noise
it says what is common to many layers, under little what is special to each. It is computed from what is released and
from nothing else, so it costs no privacy.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from personalization.wire.statistics import StatisticsLayout

Vector = NDArray[np.float64]

# Standard deviations on the scale of the wire: of what all atoms have in common, those of a kind of layer (attention
# and MLP take turns), those of a kind at a level, all at a level, those of a layer; and of what is an atom's own.
_COMMON, _KIND, _KIND_LEVEL, _LEVEL, _LAYER, _OWN = 0.15, 0.12, 0.04, 0.03, 0.1, 0.04
# Standard deviation of one client's sensitivity of an atom around the fleet's.
_CLIENT = 0.1
# A prior is told to clients once it leaves less than this share of the first guess's variance.
_WORTH_TELLING = 0.8


@dataclass(frozen=True)
class Estimate:
    """mean [atoms]: on the scale of the wire. information: of all observations, inverse variance of each entry."""

    mean: Vector
    information: float = 0.0


def observation_variance(noise: float, *, clients: int, share: float) -> float:
    """Return the variance of an entry of (sum / (clients share)). noise: variance of the sum's noise, wire scale."""
    return noise / (clients * share) ** 2 + _CLIENT**2 / (clients * share)


def observe(estimate: Estimate, observed: Vector, variance: float, layout: StatisticsLayout) -> Estimate:
    """Return what is believed after another observation [atoms] with noise of `variance` in each entry."""
    before = posterior_covariance(estimate.information, layout)
    gain = before @ np.linalg.inv(before + variance * np.eye(layout.atoms))
    mean = np.clip(estimate.mean + gain @ (observed - estimate.mean), 0.0, 1.0)
    return Estimate(mean, estimate.information + 1.0 / variance)


def worth_telling(estimate: Estimate, layout: StatisticsLayout) -> bool:
    """Say whether the estimate is enough better than a guess for clients to rely on it; no data have a say in it."""
    left = np.trace(posterior_covariance(estimate.information, layout))
    return bool(left < _WORTH_TELLING * np.trace(first_covariance(layout)))


def first_covariance(layout: StatisticsLayout) -> Vector:
    """Return the covariance [atoms, atoms] of the public guess."""
    layer = np.repeat(np.arange(layout.layers), layout.levels)
    level = np.tile(np.arange(layout.levels), layout.layers)
    kind = layer % 2
    return np.asarray(
        _COMMON**2
        + _KIND**2 * _same(kind)
        + _KIND_LEVEL**2 * _same(kind) * _same(level)
        + _LEVEL**2 * _same(level)
        + _LAYER**2 * _same(layer)
        + _OWN**2 * np.eye(layout.atoms)
    )


def posterior_covariance(information: float, layout: StatisticsLayout) -> Vector:
    """Return the covariance [atoms, atoms] that observations of so much information leave: K - K (K + I / i)^-1 K."""
    first = first_covariance(layout)
    if information == 0.0:
        return first
    return np.asarray(first - first @ np.linalg.solve(first + np.eye(layout.atoms) / information, first))


def _same(labels: NDArray[np.int64]) -> Vector:
    return np.asarray(labels[:, None] == labels[None, :], dtype=np.float64)
