"""The fleet drops only what a given share of it can spare."""

from dataclasses import dataclass

import numpy as np

from personalization.errors import UserError
from personalization.wire.statistics import StatisticsLayout
from strategies.base import Strategy, Vector
from strategies.weighted_quantile import weighted_quantile

CAUTIOUS = ("weighted_sensitivity", "personalized", "group_kept")


@dataclass(frozen=True, kw_only=True)
class QuantileConsensus(Strategy):
    """An upper quantile of what speaks for keeping (quantiles as in Hyndman and Fan 1996, definition 1).

    share: a group is dropped, and a layer not called personalized, only if at least this share of the clients can spare
    it; a sensitivity is that which this share of the evidence does not exceed. The other fields get the median. Clients
    who want too much dropped have no say while they are fewer than `share`; a share of 1 - `share` of attackers can
    keep everything.
    """

    name = "quantile-consensus"
    share: float = 0.9

    def __post_init__(self) -> None:
        """Refuse a share that makes no sense."""
        if not 0.5 <= self.share <= 1.0:
            raise UserError(f"{self.name}: share={self.share:g}: expected a share of the clients from 0.5 to 1")

    def reduce(self, values: Vector, weights: Vector) -> Vector:
        """Return the median [statistics] of each column: for the fields where caution has no side."""
        del weights
        return np.asarray(np.median(values, axis=0), dtype=np.float64)

    def reduce_fields(self, values: Vector, weights: Vector, layout: StatisticsLayout) -> Vector:
        """Return medians [statistics], but upper quantiles of what speaks for keeping."""
        reduced = self.reduce(values, weights)
        for name in CAUTIOUS:
            columns = layout.field(name)
            reduced[columns] = weighted_quantile(values[:, columns], weights[:, columns], self.share)
        return reduced
