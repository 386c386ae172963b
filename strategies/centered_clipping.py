"""Centered clipping: no client moves the result by more than a radius."""

from dataclasses import dataclass

import numpy as np

from personalization.errors import UserError
from strategies.base import Strategy, Vector
from strategies.distances import distances_to


@dataclass(frozen=True, kw_only=True)
class CenteredClipping(Strategy):
    """Centered clipping (Karimireddy et al. 2021, arXiv 2012.10333, algorithm 2).

    The paper starts from the last round's result. Here every round starts from the coordinate-wise median, so that no
    state is needed and one bad round spoils no other. radius: of the clipping ball, in units of the median distance of
    the clients from that start, so that it follows how far honest clients differ. iterations: of the paper's step.
    """

    name = "centered-clipping"
    radius: float = 1.0
    iterations: int = 3

    def __post_init__(self) -> None:
        """Refuse settings that make no sense."""
        if not 0.0 < self.radius < np.inf or self.iterations < 1:
            raise UserError(
                f"{self.name}: radius={self.radius:g} iterations={self.iterations}: expected a radius above 0 and one "
                "iteration or more"
            )

    def reduce(self, values: Vector, weights: Vector) -> Vector:
        """Return the clipped mean [statistics] of the rows of `values`."""
        del weights
        centre = np.asarray(np.median(values, axis=0), dtype=np.float64)
        radius = self.radius * float(np.median(distances_to(values, centre)))
        for _ in range(self.iterations):
            away = distances_to(values, centre)
            scale = np.divide(radius, away, out=np.ones_like(away), where=away > radius)
            centre = centre + ((values - centre) * scale[:, None]).mean(axis=0)
        return centre
