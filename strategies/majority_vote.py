"""A majority decides which units the fleet keeps."""

import numpy as np

from personalization.wire.statistics import StatisticsLayout
from strategies.base import Strategy, Vector

VOTED = ("group_kept", "personalized")


class MajorityVote(Strategy):
    """Each client votes to keep what it kept any of; what not more than half of the clients keep gets 0.

    Signs are aggregated so in signSGD with majority vote (Bernstein et al. 2019, arXiv 1810.05291), which bears
    attackers short of a half. What is kept gets the median of those who keep it, a layer called personalized likewise;
    all other fields get the coordinate-wise median.
    """

    name = "majority-vote"

    def reduce(self, values: Vector, weights: Vector) -> Vector:
        """Return the median [statistics] of each column: for the fields that are not voted on."""
        del weights
        return np.asarray(np.median(values, axis=0), dtype=np.float64)

    def reduce_fields(self, values: Vector, weights: Vector, layout: StatisticsLayout) -> Vector:
        """Return medians [statistics], but the outcome of the vote where there is one."""
        reduced = self.reduce(values, weights)
        for name in VOTED:
            reduced[layout.field(name)] = vote(values[:, layout.field(name)])
        return reduced


def vote(shares: Vector) -> Vector:
    """Return for each column of `shares` [clients, units], all >= 0, the median of the positive entries, or 0.

    It is 0 unless more than half of the entries are positive. Returns [units].
    """
    clients = len(shares)
    ordered = np.sort(shares, axis=0)
    against = (ordered == 0.0).sum(axis=0)
    # Those in favour stand behind those against: their median lies in the middle of what is left of the column.
    middle = np.stack([(against + clients - 1) // 2, np.minimum((against + clients) // 2, clients - 1)])
    median = np.take_along_axis(ordered, middle, axis=0).mean(axis=0)
    return np.where(2 * against < clients, median, 0.0)
