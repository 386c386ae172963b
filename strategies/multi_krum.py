"""Multi-Krum: the mean of the vectors with the closest neighbours."""

from dataclasses import dataclass

import numpy as np

from strategies.attackers import DEFAULT_ATTACKERS, attacker_count, check_attackers, require_clients
from strategies.base import Strategy, Vector
from strategies.distances import squared_distances
from strategies.krum import krum_scores


@dataclass(frozen=True, kw_only=True)
class MultiKrum(Strategy):
    """Multi-Krum (Blanchard et al. 2017, arXiv 1703.02757): the mean of the n - f vectors with the lowest scores.

    Needs n >= 2 f + 3.
    """

    name = "multi-krum"
    attackers: float = DEFAULT_ATTACKERS

    def __post_init__(self) -> None:
        """Refuse a number of attackers that makes no sense."""
        check_attackers(self.name, self.attackers)

    def check_cohort(self, clients: int) -> None:
        """Raise UserError unless there are 2 f + 3 clients or more."""
        attackers = attacker_count(self.attackers, clients)
        require_clients(self.spec, clients, attackers=attackers, fewest=2 * attackers + 3)

    def reduce(self, values: Vector, weights: Vector) -> Vector:
        """Return the mean [statistics] of the chosen rows of `values`."""
        del weights
        attackers = attacker_count(self.attackers, len(values))
        scores = krum_scores(squared_distances(values), attackers)
        chosen = np.sort(np.argsort(scores, kind="stable")[: len(values) - attackers])
        return np.asarray(values[chosen].mean(axis=0), dtype=np.float64)
