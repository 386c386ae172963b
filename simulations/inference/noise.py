"""What of a client's vector is released under differential privacy, and the noise on a sum of it."""

import math

import numpy as np

from personalization.wire.plan import Plan
from personalization.wire.statistics import StatisticsLayout
from simulations.inference.views import Array
from strategies.privacy.accounting import rho_of
from strategies.privacy.mechanism import make_terms
from strategies.privacy.release import deviations
from strategies.privacy.settings import CLIP
from strategies.privacy.view import noise_in_sum


def released(vectors: Array, plan: Plan, layout: StatisticsLayout, *, clip: float = CLIP) -> Array:
    """Return what clients with `vectors` [clients, observations, statistics] release of them, [..., atoms], clipped."""
    rows = vectors.reshape(-1, vectors.shape[-1])
    found = np.stack([clipped(deviations(row, plan, layout), clip) for row in rows])
    return found.reshape(*vectors.shape[:-1], -1)


def clipped(vectors: Array, bound: float) -> Array:
    """Return `vectors` [..., entries], those longer than `bound` shortened to it (Euclidean norm)."""
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors * np.minimum(1.0, bound / np.maximum(norms, 1e-12)))


def noise_deviation(epsilon: float, delta: float, *, cohort: int, clip: float = CLIP) -> float:
    """Return the standard deviation of the noise on each entry of a secure sum to which each of `cohort` clients adds
    its share, scale of the wire, for (epsilon, delta) in one round.

    Raises UserError for cohorts that distributed noise is not for.
    """
    terms = make_terms("distributed", clip=clip, rho=rho_of(epsilon, delta))
    return math.sqrt(noise_in_sum(terms, clients=cohort, cohort=cohort))
