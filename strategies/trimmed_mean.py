"""The coordinate-wise trimmed mean."""

from dataclasses import dataclass

import numpy as np

from strategies.attackers import DEFAULT_ATTACKERS, attacker_count, check_attackers, require_clients
from strategies.base import Strategy, Vector


@dataclass(frozen=True, kw_only=True)
class TrimmedMean(Strategy):
    """Coordinate-wise trimmed mean (Yin et al. 2018, arXiv 1803.01498, definition 2).

    As many values as there may be `attackers` go at either end of each column. Needs n > 2 f; then every coordinate
    lies in the range of the honest ones.
    """

    name = "trimmed-mean"
    attackers: float = DEFAULT_ATTACKERS

    def __post_init__(self) -> None:
        """Refuse a number of attackers that makes no sense."""
        check_attackers(self.name, self.attackers)

    def check_cohort(self, clients: int) -> None:
        """Raise UserError unless something is left after trimming."""
        trimmed = attacker_count(self.attackers, clients)
        require_clients(self.spec, clients, attackers=trimmed, fewest=2 * trimmed + 1)

    def reduce(self, values: Vector, weights: Vector) -> Vector:
        """Return the mean [statistics] of what is left of each column of `values`."""
        del weights
        trimmed = attacker_count(self.attackers, len(values))
        return np.asarray(np.sort(values, axis=0)[trimmed : len(values) - trimmed].mean(axis=0), dtype=np.float64)
