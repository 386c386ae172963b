"""What every pre-aggregation offers: rows in, mixed rows out, before a strategy reduces them."""

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from strategies.component import Component

Vector = NDArray[np.float64]


class PreAggregation(Component, ABC):
    """Mixes the rows of a cohort so that they differ less, which is what robust reductions need."""

    @abstractmethod
    def mix(self, values: Vector, weights: Vector) -> tuple[Vector, Vector]:
        """Return mixed values and weights for `values` and `weights` [clients, statistics] as in `Strategy.reduce`."""

    def rows(self, clients: int) -> int:
        """Return how many rows `clients` rows become. Raises UserError if they are too few."""
        return clients
