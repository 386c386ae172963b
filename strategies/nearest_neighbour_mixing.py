"""Nearest-neighbour mixing: each vector becomes the mean of those that resemble it."""

from dataclasses import dataclass

import numpy as np

from strategies.attackers import DEFAULT_ATTACKERS, attacker_count, check_attackers, require_clients
from strategies.distances import squared_distances
from strategies.pre_aggregation import PreAggregation, Vector


@dataclass(frozen=True, kw_only=True)
class NearestNeighbourMixing(PreAggregation):
    """NNM (Allouah et al. 2023, arXiv 2302.01772, algorithm 2): the mean of the n - f nearest rows, itself included.

    Needs n > 2 f.
    """

    name = "nnm"
    attackers: float = DEFAULT_ATTACKERS

    def __post_init__(self) -> None:
        """Refuse a number of attackers that makes no sense."""
        check_attackers(self.name, self.attackers)

    def rows(self, clients: int) -> int:
        """Return `clients`. Raises UserError unless they are more than twice the attackers."""
        attackers = attacker_count(self.attackers, clients)
        require_clients(self.spec, clients, attackers=attackers, fewest=2 * attackers + 1)
        return clients

    def mix(self, values: Vector, weights: Vector) -> tuple[Vector, Vector]:
        """Return the means of values and of weights over each row's nearest rows; shapes stay."""
        kept = len(values) - attacker_count(self.attackers, len(values))
        nearest = np.argsort(squared_distances(values), axis=1, kind="stable")[:, :kept]
        chosen = np.zeros((len(values), len(values)))
        np.put_along_axis(chosen, nearest, 1.0 / kept, axis=1)
        return chosen @ values, chosen @ weights
