"""The mean of a fleet in which each sensitivity counts as much as it is known."""

import numpy as np

from personalization.statistics import StatisticsLayout
from strategies.base import Strategy, Vector


class PrecisionWeightedMean(Strategy):
    """Inverse-variance weighting: sensitivity = sum(p * s) / sum(p) for each atom.

    A vector carries p and p * s, so that the mean of both, divided, is that: mean(p * s) / mean(p). An atom that
    nobody measured keeps precision 0. The other fields are plain means.
    """

    name = "precision-weighted-mean"

    def reduce(self, vectors: Vector, layout: StatisticsLayout) -> Vector:
        """Return the mean [statistics] of `vectors` [clients, statistics]."""
        # Sorted, because a floating-point sum depends on its order and the result must not depend on who came first.
        mean = np.sort(vectors, axis=0).mean(axis=0)
        return np.asarray(np.clip(mean, vectors.min(axis=0), vectors.max(axis=0)), dtype=np.float64)
