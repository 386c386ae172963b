"""Robust and private together: secure sums in small random cohorts, and a robust reduction of the cohorts' means.

The server sees the cohorts' means and no client's vector, as if bucketing (Karimireddy et al. 2022, arXiv 2006.09365)
had mixed the rows before they came. f attackers spoil at most f cohorts, so a strategy must bear that many of them.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from personalization.errors import UserError
from personalization.wire.statistics import StatisticsLayout
from strategies.base import Strategy
from strategies.secure_aggregation.server import SecureTotal


def draw_cohorts(handles: Iterable[int], *, size: int, seed: int) -> list[tuple[int, ...]]:
    """Return a random partition into as many cohorts of at least `size` clients as there can be, as even as can be.

    Raises UserError if there are fewer clients than one cohort needs.
    """
    clients = sorted(handles)
    if not 0 < size <= len(clients):
        raise UserError(
            f"secure sums in cohorts of {size}: {len(clients)} clients are too few for one; "
            "ask more clients a round, or make the cohorts smaller"
        )
    order = np.random.default_rng(seed).permutation(clients)
    return [tuple(sorted(part.tolist())) for part in np.array_split(order, len(clients) // size)]


def reduce_cohorts(totals: Sequence[SecureTotal], strategy: Strategy, layout: StatisticsLayout) -> NDArray[np.float64]:
    """Return what `strategy` makes of the cohorts' means [statistics]. Every cohort counts as one client.

    Raises UserError if the strategy can't reduce so few, StatisticsError for sums that are no statistics.
    """
    return strategy([np.minimum(total.mean, 1.0) for total in totals], layout)
