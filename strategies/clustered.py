"""Clients grouped by their statistics: a plan for each group."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from personalization.errors import UserError
from personalization.wire.statistics import StatisticsLayout, check
from strategies.base import State, Strategy, Vector, canonical_rows
from strategies.completion import opinions
from strategies.k_means import k_means, nearest
from strategies.precision_weighted_mean import PrecisionWeightedMean

_SEED = 0


@dataclass(kw_only=True)
class Clustered(Strategy):
    """Clustered federation (in the spirit of Ghosh et al. 2020, arXiv 2006.04088; clusters by k-means).

    `place` says which group a client belongs to, and calling the strategy reduces the vectors of one group with `base`.
    The first cohort of two clients a group or more decides the centroids; they stay, so that a newcomer is placed
    by its first statistics and a group keeps its meaning.
    """

    name = "clustered"
    groups: int = 2
    base: Strategy = field(default_factory=PrecisionWeightedMean)
    _centroids: Vector | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        """Refuse settings that make no sense."""
        if self.groups < 2:
            raise UserError(f"{self.name}: groups={self.groups}: expected 2 or more")
        if self.base.groups > 1:
            raise UserError(f"{self.name}: base={self.base.spec}: expected a strategy that makes no groups itself")
        self.balanced = self.base.balanced

    def reduce(self, values: Vector, weights: Vector) -> Vector:
        """Return what `base` makes [statistics] of one group's rows."""
        return self.base.reduce(values, weights)

    def reduce_fields(self, values: Vector, weights: Vector, layout: StatisticsLayout) -> Vector:
        """Return what `base` makes [statistics] of one group's rows."""
        return self.base.reduce_fields(values, weights, layout)

    def check_cohort(self, clients: int) -> None:
        """Raise UserError if `base` can't reduce a group of so few clients."""
        self.base.check_cohort(clients)

    def place(self, vectors: Mapping[int, Vector], layout: StatisticsLayout) -> dict[int, int]:
        """Return the group of each node id; none while fewer than two clients a group were ever seen together.

        The distance from a centroid counts only what the client measured. Raises StatisticsError on what is not a
        valid vector.
        """
        rows = [check(vector, layout) for vector in vectors.values()]
        if self._centroids is None:
            if len(rows) < 2 * self.groups:
                return {}
            self._centroids = k_means(*opinions(canonical_rows(rows, layout), layout), self.groups, seed=_SEED)
        if not rows:
            return {}
        placed = nearest(*opinions(np.stack(rows), layout), self._centroids)
        return dict(zip(vectors, placed.tolist(), strict=True))

    def state(self) -> State:
        """Return the centroids, row after row, once there are any."""
        return {} if self._centroids is None else {"centroids": self._centroids.ravel().tolist()}

    def restore(self, state: Mapping[str, Sequence[float]]) -> None:
        """Take over the centroids. Raises ValueError on what `state` can't have returned."""
        if not state:
            self._centroids = None
            return
        if set(state) != {"centroids"}:
            raise ValueError(f"{self.spec}: expected centroids, found {', '.join(sorted(state))}")
        self._centroids = np.array(state["centroids"], dtype=np.float64).reshape(self.groups, -1)
