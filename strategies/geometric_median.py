"""The geometric median: the point with the smallest sum of distances."""

from dataclasses import dataclass

import numpy as np

from personalization.errors import UserError
from strategies.base import Strategy, Vector
from strategies.distances import distances_to

_TOLERANCE = 1e-9


@dataclass(frozen=True, kw_only=True)
class GeometricMedian(Strategy):
    """RFA: geometric median by smoothed Weiszfeld iterations (Pillutla et al. 2022, arXiv 1912.13445, algorithm 2).

    smoothing: distances below it count as this (nu in the paper). iterations: at most so many; it stops earlier once
    the point moves by less than 1e-9.
    """

    name = "geometric-median"
    smoothing: float = 1e-6
    iterations: int = 200

    def __post_init__(self) -> None:
        """Refuse settings that make no sense."""
        if not 0.0 < self.smoothing < 1.0 or self.iterations < 1:
            raise UserError(
                f"{self.name}: smoothing={self.smoothing:g} iterations={self.iterations}: expected a smoothing between "
                "0 and 1 and one iteration or more"
            )

    def reduce(self, values: Vector, weights: Vector) -> Vector:
        """Return the geometric median [statistics] of the rows of `values`; it starts from their mean."""
        del weights
        point = values.mean(axis=0)
        for _ in range(self.iterations):
            shares = 1.0 / np.maximum(distances_to(values, point), self.smoothing)
            moved = (shares / shares.sum()) @ values
            step = float(np.linalg.norm(moved - point))
            point = moved
            if step < _TOLERANCE:
                break
        return np.asarray(point, dtype=np.float64)
