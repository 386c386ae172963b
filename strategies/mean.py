"""The mean of a fleet in which everybody who measured counts alike."""

import numpy as np

from strategies.base import Strategy, Vector


class Mean(Strategy):
    """The plain mean (federated averaging with equal weights: McMahan et al. 2017, arXiv 1602.05629).

    A sensitivity is the mean over those who measured it, however well they did.
    """

    name = "mean"
    balanced = False

    def reduce(self, values: Vector, weights: Vector) -> Vector:
        """Return the mean [statistics] of `values` over the rows with any weight; 0 where nobody has."""
        counted = weights > 0.0
        count = counted.sum(axis=0)
        total = np.where(counted, values, 0.0).sum(axis=0)
        return np.asarray(np.divide(total, count, out=np.zeros_like(total), where=count > 0))
