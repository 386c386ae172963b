"""Which entries of a client's statistics are released: how far the layers that it measured lie from the plan's prior.

Noise in a vector grows with all that is in it, so what is not needed is left out. Sensitivities are what makes the
fleet's prior; how well they are known follows from how many probes the plan allows; what everybody can drop, and the
scalars of reports, would take most of the noise budget (see docs/privacy_differential.md). And a deviation from what
is known already is shorter than the thing itself, the shorter the more rounds have passed.
"""

import numpy as np
from numpy.typing import NDArray

from personalization.wire.plan import Plan
from personalization.wire.statistics import StatisticsLayout, to_wire

Vector = NDArray[np.float64]
# Where deviations are taken from before the fleet knows anything: a public guess, on the scale of the wire.
FIRST_CENTRE = 0.2


def released_entries(layout: StatisticsLayout) -> int:
    """Return the length of the released vector: one entry an atom."""
    return layout.atoms


def centre_of(plan: Plan, layout: StatisticsLayout) -> Vector:
    """Return what deviations are taken from, [atoms] on the scale of the wire: the plan's prior, or a constant."""
    if plan.prior is None:
        return np.full(layout.atoms, FIRST_CENTRE)
    return to_wire(plan.prior.sensitivity)


def measured_share(plan: Plan, layout: StatisticsLayout) -> float:
    """Return the share of the atoms that a client is taken to have measured: as many as the plan allows probes."""
    return min(1.0, plan.probes / layout.atoms)


def deviations(vector: Vector, plan: Plan, layout: StatisticsLayout) -> Vector:
    """Return [atoms]: sensitivity minus centre where the client has measured, 0 elsewhere, from its statistics vector.

    A client that has measured more than the plan's share, in earlier rounds, counts as much as others in all: the sum
    over clients, divided by their number times `measured_share`, estimates the fleet's deviation.
    """
    precision = vector[layout.field("precision")]
    weighted = np.minimum(vector[layout.field("weighted_sensitivity")], precision)
    measured = precision > 0.0
    if not measured.any():
        return np.zeros(layout.atoms)
    sensitivity = np.divide(weighted, precision, out=np.zeros_like(weighted), where=measured)
    scale = measured_share(plan, layout) / float(measured.mean())
    return np.where(measured, scale * (sensitivity - centre_of(plan, layout)), 0.0)
