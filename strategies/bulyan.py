"""Bulyan: Krum's choice first, then a trimmed mean around the median."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from strategies.attackers import attacker_count, check_attackers, require_clients
from strategies.base import Strategy, Vector
from strategies.distances import squared_distances
from strategies.krum import krum_scores


@dataclass(frozen=True, kw_only=True)
class Bulyan(Strategy):
    """Bulyan over Krum (El Mhamdi et al. 2018, arXiv 1802.07927, section 4).

    Needs n >= 4 f + 3; the default is a share that any cohort of 3 clients or more can bear. At most f of the chosen
    rows are attackers', so that the median is honest and n - 4 f values or more of a column lie within the width of
    the honest range from it: so does the result.
    """

    name = "bulyan"
    attackers: float = 0.15

    def __post_init__(self) -> None:
        """Refuse a number of attackers that makes no sense."""
        check_attackers(self.name, self.attackers, below=0.25)

    def check_cohort(self, clients: int) -> None:
        """Raise UserError unless there are 4 f + 3 clients or more."""
        attackers = attacker_count(self.attackers, clients)
        require_clients(self.spec, clients, attackers=attackers, fewest=4 * attackers + 3)

    def reduce(self, values: Vector, weights: Vector) -> Vector:
        """Return the mean [statistics] of the n - 4 f chosen values of each column that are nearest to their median."""
        del weights
        attackers = attacker_count(self.attackers, len(values))
        chosen = values[bulyan_selection(values, attackers)]
        away = np.abs(chosen - np.median(chosen, axis=0))
        nearest = np.argsort(away, axis=0, kind="stable")[: len(values) - 4 * attackers]
        return np.asarray(np.take_along_axis(chosen, nearest, axis=0).mean(axis=0), dtype=np.float64)


def bulyan_selection(values: Vector, attackers: int) -> NDArray[np.intp]:
    """Return the rows, in ascending order, of the n - 2 f vectors that Krum picks one after the other.

    values: [clients, statistics]. What is picked is taken out before Krum is asked again.
    """
    left = np.arange(len(values))
    distances = squared_distances(values)
    for _ in range(len(values) - 2 * attackers):
        best = krum_scores(distances[np.ix_(left, left)], attackers).argmin()
        left = np.delete(left, best)
    return np.setdiff1d(np.arange(len(values)), left)
