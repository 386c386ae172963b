"""What every strategy offers: many statistics vectors in, one out."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from personalization.statistics import StatisticsError, StatisticsLayout, check

Vector = NDArray[np.float64]


class Strategy(ABC):
    """Reduces the vectors of a round's clients to one. A new strategy is one method and one line in the registry."""

    name: str

    @abstractmethod
    def reduce(self, vectors: Vector, layout: StatisticsLayout) -> Vector:
        """Return one vector [statistics] for `vectors` [clients, statistics], all entries finite and in [0, 1].

        The order of clients must not matter, and clients that agree must get back what they sent.
        """

    def __call__(self, vectors: Sequence[Vector], layout: StatisticsLayout) -> Vector:
        """Check the vectors, reduce them and check the result. Raises StatisticsError on what is not a valid vector."""
        if not len(vectors):
            raise StatisticsError("no vectors to reduce")
        return check(self.reduce(np.stack([check(v, layout) for v in vectors]), layout), layout)
