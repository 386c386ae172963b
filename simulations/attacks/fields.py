"""A statistics vector taken apart into what it means: sensitivities instead of their products with precision."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from personalization.wire.plan import Plan
from personalization.wire.statistics import SCALARS, StatisticsLayout, to_wire

Vector = NDArray[np.float64]
_FIELDS = ("precision", "sensitivity", "level", "personalized", "group_kept", "scalars")


@dataclass(frozen=True, kw_only=True)
class Fields:
    """What vectors say, a row for each, every entry in [0, 1] (a layout's widths as columns).

    sensitivity [rows, atoms]: on the scale of the wire; what it says where precision is 0 does not travel. The other
    fields are those of StatisticsLayout.
    """

    precision: Vector
    sensitivity: Vector
    level: Vector
    personalized: Vector
    group_kept: Vector
    scalars: Vector

    def replaced(self, **fields: Vector) -> "Fields":
        """Return the same with other values for some fields; shapes as before."""
        return replace(self, **fields)

    def repeated(self, rows: int) -> "Fields":
        """Return `rows` copies of a single row."""
        return Fields(**{name: np.repeat(getattr(self, name), rows, axis=0) for name in _FIELDS})

    def picked(self, rows: NDArray[np.int64]) -> "Fields":
        """Return the rows of these numbers."""
        return Fields(**{name: getattr(self, name)[rows] for name in _FIELDS})

    def join(self) -> Vector:
        """Return the vectors [rows, statistics] that say this, clipped to [0, 1]."""
        precision = np.clip(self.precision, 0.0, 1.0)
        weighted = precision * np.clip(self.sensitivity, 0.0, 1.0)
        parts = [precision, weighted, self.level, self.personalized, self.group_kept, self.scalars]
        return np.asarray(np.clip(np.concatenate(parts, axis=1), 0.0, 1.0), dtype=np.float64)


def split(vectors: Vector, layout: StatisticsLayout) -> Fields:
    """Return what `vectors` [rows, statistics] say; a sensitivity that nobody measured is 0."""
    parts = {name: vectors[:, layout.field(name)] for name in layout.widths}
    weighted, precision = parts.pop("weighted_sensitivity"), parts["precision"]
    sensitivity = np.divide(weighted, precision, out=np.zeros_like(weighted), where=precision > 0)
    return Fields(sensitivity=np.clip(sensitivity, 0.0, 1.0), **parts)


def believed(vectors: Vector, layout: StatisticsLayout, plan: Plan) -> Vector:
    """Return the sensitivities [atoms] that the fleet would find without attackers, on the scale of the wire.

    The precision-weighted mean of `vectors` [rows, statistics]. Where none of them measured, it is the plan's prior,
    and where that knows nothing either, the mean of the rest.
    """
    fields = split(vectors, layout)
    evidence = fields.precision.sum(0)
    known = evidence > 0
    mean = np.zeros(layout.atoms)
    mean[known] = (fields.precision * fields.sensitivity).sum(0)[known] / evidence[known]
    if plan.prior is not None:
        from_prior = ~known & (plan.prior.precision > 0)
        mean[from_prior] = to_wire(plan.prior.sensitivity)[from_prior]
        known = known | from_prior
    mean[~known] = mean[known].mean() if known.any() else 0.5
    return mean


def average(vectors: Vector, layout: StatisticsLayout, plan: Plan) -> Fields:
    """Return one row that looks like the mean of `vectors` [rows, statistics], with `believed` as sensitivity."""
    mean = split(vectors.mean(0, keepdims=True), layout)
    return mean.replaced(sensitivity=believed(vectors, layout, plan)[None])


def echo(plan: Plan, layout: StatisticsLayout) -> Fields:
    """Return one row that says what the plan says: its prior as measurements, everything kept that is not dropped.

    Without a prior nothing is measured. Levels and sizes are what the plan's budget comes to.
    """
    known = plan.prior
    sizes = {"agreement": 1.0, "size_ratio": plan.budget, "latency_ratio": plan.budget}
    return Fields(
        precision=np.zeros((1, layout.atoms)) if known is None else np.minimum(known.precision, 1.0)[None],
        sensitivity=np.zeros((1, layout.atoms)) if known is None else to_wire(known.sensitivity)[None],
        level=np.full((1, layout.layers), 1.0 - plan.budget),
        personalized=np.zeros((1, layout.layers)),
        group_kept=(~plan.dropped).astype(np.float64)[None],
        scalars=np.array([[sizes.get(name, 0.0) for name in SCALARS]]),
    )
