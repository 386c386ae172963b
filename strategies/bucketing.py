"""Bucketing: means of small random buckets take the place of clients."""

from dataclasses import dataclass

import numpy as np

from personalization.errors import UserError
from strategies.pre_aggregation import PreAggregation, Vector


@dataclass(frozen=True, kw_only=True)
class Bucketing(PreAggregation):
    """Bucketing (Karimireddy et al. 2022, arXiv 2006.09365, algorithm 1).

    size: clients a bucket; the last bucket may hold fewer. f attackers spoil up to f buckets, so that a strategy behind
    it must bear that many of n / size: its `attackers`, as a share, is one of the buckets. The permutation is drawn
    with `seed` over rows whose order depends on their content alone, so that the order of clients does not matter.
    """

    name = "bucketing"
    size: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse settings that make no sense."""
        if self.size < 1 or self.seed < 0:
            raise UserError(
                f"{self.name}: size={self.size} seed={self.seed}: expected a size of 1 or more and a seed of 0 or more"
            )

    def rows(self, clients: int) -> int:
        """Return the number of buckets."""
        return -(-clients // self.size)

    def mix(self, values: Vector, weights: Vector) -> tuple[Vector, Vector]:
        """Return the means of values and of weights [buckets, statistics] over each bucket."""
        order = np.random.default_rng(self.seed).permutation(len(values))
        starts = np.arange(0, len(values), self.size)
        counts = np.diff(np.append(starts, len(values)))[:, None]
        return np.add.reduceat(values[order], starts) / counts, np.add.reduceat(weights[order], starts) / counts
