"""The mean of a fleet in which each sensitivity counts as much as it is known."""

import numpy as np

from strategies.base import Strategy, Vector


class PrecisionWeightedMean(Strategy):
    """Inverse-variance weighting (Cochran 1937, "Problems arising in the analysis of a series of similar experiments").

    Sensitivity = sum(p * s) / sum(p) for each atom; whatever is not a sensitivity weighs 1 and becomes a plain mean.
    """

    name = "precision-weighted-mean"
    balanced = False

    def reduce(self, values: Vector, weights: Vector) -> Vector:
        """Return the weighted mean [statistics] of `values`; 0 where nobody has any weight."""
        total = weights.sum(axis=0)
        weighted = (weights * values).sum(axis=0)
        return np.asarray(np.divide(weighted, total, out=np.zeros_like(total), where=total > 0.0))
