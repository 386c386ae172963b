"""Krum: the vector with the closest neighbours."""

from dataclasses import dataclass

import numpy as np

from strategies.attackers import DEFAULT_ATTACKERS, attacker_count, check_attackers, require_clients
from strategies.base import Strategy, Vector
from strategies.distances import squared_distances


@dataclass(frozen=True, kw_only=True)
class Krum(Strategy):
    """Krum (Blanchard et al. 2017, arXiv 1703.02757): one client's vector, that with the lowest score.

    Needs n >= 2 f + 3. The precision that goes with the vector is the whole cohort's.
    """

    name = "krum"
    attackers: float = DEFAULT_ATTACKERS

    def __post_init__(self) -> None:
        """Refuse a number of attackers that makes no sense."""
        check_attackers(self.name, self.attackers)

    def check_cohort(self, clients: int) -> None:
        """Raise UserError unless there are 2 f + 3 clients or more."""
        attackers = attacker_count(self.attackers, clients)
        require_clients(self.spec, clients, attackers=attackers, fewest=2 * attackers + 3)

    def reduce(self, values: Vector, weights: Vector) -> Vector:
        """Return the row [statistics] of `values` with the lowest score."""
        del weights
        scores = krum_scores(squared_distances(values), attacker_count(self.attackers, len(values)))
        return np.asarray(values[scores.argmin()].copy())


def krum_scores(distances: Vector, attackers: int) -> Vector:
    """Return for each row the sum of squared distances to its n - f - 2 nearest others (section 4 of the paper).

    distances: squared, [rows, rows]. At least one neighbour counts as long as there is one. Returns [rows].
    """
    rows = len(distances)
    nearest = min(max(rows - attackers - 2, 1), rows - 1)
    if nearest == 0:
        return np.zeros(rows)
    others = distances + np.diag(np.full(rows, np.inf))
    return np.asarray(np.sort(others, axis=1)[:, :nearest].sum(axis=1), dtype=np.float64)
