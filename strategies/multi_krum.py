"""Multi-Krum: the mean of the vectors with the closest neighbours."""

from dataclasses import dataclass

import numpy as np

from strategies.attackers import attacker_count
from strategies.base import Vector
from strategies.distances import squared_distances
from strategies.krum import Krum, krum_scores


@dataclass(frozen=True, kw_only=True)
class MultiKrum(Krum):
    """Multi-Krum (Blanchard et al. 2017, arXiv 1703.02757): the mean of the n - f vectors with the lowest scores.

    Needs what Krum needs.
    """

    name = "multi-krum"

    def reduce(self, values: Vector, weights: Vector) -> Vector:
        """Return the mean [statistics] of the chosen rows of `values`."""
        del weights
        attackers = attacker_count(self.attackers, len(values))
        scores = krum_scores(squared_distances(values), attackers)
        chosen = np.sort(np.argsort(scores, kind="stable")[: len(values) - attackers])
        return np.asarray(values[chosen].mean(axis=0), dtype=np.float64)
