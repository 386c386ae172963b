"""What every strategy offers: many statistics vectors in, one out."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from personalization.wire.statistics import StatisticsError, StatisticsLayout, check
from strategies.completion import complete
from strategies.component import Component

Vector = NDArray[np.float64]
State = dict[str, list[float]]


class Strategy(Component, ABC):
    """Reduces the vectors of a round's clients to one. A new strategy is one method and one line in the registry.

    balanced: whether precision is balanced before it weighs anything (see completion.py); only plain means do
    without. groups: how many groups of clients get a plan of their own.
    """

    balanced: bool = True
    groups: int = 1

    @abstractmethod
    def reduce(self, values: Vector, weights: Vector) -> Vector:
        """Return one vector [statistics] for `values` [clients, statistics], all entries finite and in [0, 1].

        weights [clients, statistics]: how well each entry is known; 0 where the client abstained and its value is
        only filled in, 1 for whatever is not a sensitivity. The rows come in an order that depends on their content
        alone, so that ties, sums and seeds need no further care. Rows that agree must come back.
        """

    def reduce_fields(self, values: Vector, weights: Vector, layout: StatisticsLayout) -> Vector:
        """Return the same for reductions that must know which column is what; as a rule, `reduce`."""
        del layout
        return self.reduce(values, weights)

    def check_cohort(self, clients: int) -> None:
        """Raise UserError if the strategy can't reduce so few clients; as a rule, one is enough."""

    def state(self) -> State:
        """Return what must survive a restart of the server; as a rule, nothing."""
        return {}

    def restore(self, state: Mapping[str, Sequence[float]]) -> None:
        """Take over what `state` returned. Raises ValueError on what it can't have returned."""
        if state:
            raise ValueError(f"{self.spec} keeps no state, but there is some of {', '.join(sorted(state))}")

    def place(self, vectors: Mapping[int, Vector], layout: StatisticsLayout) -> dict[int, int]:
        """Return the group, from 0 to `groups` - 1, of each node id whose vector is given; as a rule, 0.

        Raises StatisticsError on what is not a valid vector.
        """
        for vector in vectors.values():
            check(vector, layout)
        return dict.fromkeys(vectors, 0)

    def __call__(self, vectors: Sequence[Vector], layout: StatisticsLayout) -> Vector:
        """Return the reduced vector [statistics], in which `weighted_sensitivity` is p * s again.

        Sensitivities are completed first (see completion.py). The reduced precision is the mean of the clients',
        whatever the reduction: evidence adds up. Raises StatisticsError on what is not a valid vector, before anything
        is reduced, and UserError as `check_cohort` does.
        """
        rows = canonical_rows(vectors, layout)
        self.check_cohort(len(rows))
        cohort = complete(rows, layout, balanced=self.balanced)
        # A mean of entries that lie in [0, 1] may be rounded out of it.
        reduced = np.clip(self.reduce_fields(cohort.values, cohort.weights, layout), 0.0, 1.0)
        check(reduced, layout)
        reduced[layout.field("precision")] = np.clip(cohort.precision, 0.0, 1.0)
        reduced[layout.field("weighted_sensitivity")] *= reduced[layout.field("precision")]
        return check(reduced, layout)


def canonical_rows(vectors: Sequence[Vector], layout: StatisticsLayout) -> Vector:
    """Return checked `vectors` as rows [clients, statistics] in an order that depends on their content alone.

    Sums of floating-point numbers, ties and seeded draws depend on the order of the rows; sorted once, nothing
    depends on who answered first. Raises StatisticsError on no vectors, and on NaN, infinity, range or shape.
    """
    if not len(vectors):
        raise StatisticsError("no vectors to reduce")
    # Adding zero turns -0.0 into 0.0: equal rows have equal bytes.
    rows = np.stack([check(vector, layout) for vector in vectors]).astype(np.float64) + 0.0
    content = [row.tobytes() for row in rows]
    return rows[sorted(range(len(rows)), key=content.__getitem__)]
