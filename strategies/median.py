"""The coordinate-wise median."""

import numpy as np

from strategies.base import Strategy, Vector


class Median(Strategy):
    """Coordinate-wise median (Yin et al. 2018, arXiv 1803.01498, definition 1).

    With fewer than half of the clients attacking, every coordinate lies in the range of the honest ones.
    """

    name = "median"

    def reduce(self, values: Vector, weights: Vector) -> Vector:
        """Return the median [statistics] of each column of `values`."""
        del weights
        return np.asarray(np.median(values, axis=0), dtype=np.float64)
