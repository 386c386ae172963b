"""Full rows from clients that measured only a part: what a reduction over coordinates or distances needs.

A client sends precision p and p * s for the atoms that it measured and zeros for the others. A zero there is no
opinion, so that a median of these entries would say how few have measured, not what they found.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from personalization.wire.statistics import StatisticsLayout
from strategies.weighted_quantile import weighted_median

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Cohort:
    """The rows that a strategy reduces.

    values [clients, statistics]: the vectors, but `weighted_sensitivity` holds the sensitivity s itself (scale of the
    wire), and `precision` the mean over clients, the same in each row: what somebody happened to measure is evidence
    and not an opinion, and must not count as a distance. weights [clients, statistics]: the client's precision at
    sensitivities, 0 where it did not measure, and 1 elsewhere. precision [atoms]: the mean over clients.
    """

    values: Vector
    weights: Vector
    precision: Vector


def balanced_precision(precision: Vector) -> Vector:
    """Return precision [clients, atoms] with every client's total lowered to the cohort's median total at most.

    The median is over those who measured at all. Each entry is bounded by the wire; this bounds the sum, so that
    nobody buys influence by claiming to know everything well.
    """
    totals = precision.sum(axis=1)
    some = totals > 0.0
    if not some.any():
        return precision
    median = float(np.median(totals[some]))
    scale = np.divide(median, totals, out=np.ones_like(totals), where=totals > median)
    return np.asarray(precision * scale[:, None], dtype=np.float64)


def complete(vectors: Vector, layout: StatisticsLayout, *, balanced: bool = True) -> Cohort:
    """Return the cohort for `vectors` [clients, statistics], all entries finite and in [0, 1].

    A client abstains from an atom that it has not measured: it gets the median of those who have, weighted by
    precision, and 0 if nobody has. balanced: whether precision is balanced first, see `balanced_precision`.
    """
    atoms, shares = layout.field("precision"), layout.field("weighted_sensitivity")
    precision = balanced_precision(vectors[:, atoms]) if balanced else vectors[:, atoms]
    sensitivity = _sensitivity(vectors, layout)
    median = np.where((precision > 0.0).any(axis=0), weighted_median(sensitivity, precision), 0.0)
    mean = precision.mean(axis=0)
    values = vectors.copy()
    values[:, atoms] = mean
    values[:, shares] = np.where(precision > 0.0, sensitivity, median)
    weights = np.ones_like(values)
    weights[:, shares] = precision
    return Cohort(values, weights, mean)


def opinions(vectors: Vector, layout: StatisticsLayout) -> tuple[Vector, NDArray[np.bool_]]:
    """Return what tells clients apart, and where it is known, both [clients, atoms + 2 layers + groups].

    Sensitivities count where the client measured them; level, personalized and group_kept always. Every field is
    divided by the root of its width, so that all of them weigh alike in a squared distance.
    """
    known = vectors[:, layout.field("precision")] > 0.0
    parts = [_sensitivity(vectors, layout) / np.sqrt(layout.atoms)]
    for name in ("level", "personalized", "group_kept"):
        parts.append(vectors[:, layout.field(name)] / np.sqrt(layout.widths[name]))
    rows = np.concatenate(parts, axis=1)
    full = np.ones((len(rows), rows.shape[1] - known.shape[1]), dtype=np.bool_)
    return rows, np.concatenate([known, full], axis=1)


def _sensitivity(vectors: Vector, layout: StatisticsLayout) -> Vector:
    precision, weighted = vectors[:, layout.field("precision")], vectors[:, layout.field("weighted_sensitivity")]
    # The smaller of both over precision is the quotient clipped to 1, without an overflow at tiny precisions.
    bounded = np.minimum(weighted, precision)
    return np.asarray(np.divide(bounded, precision, out=np.zeros_like(weighted), where=precision > 0.0))
