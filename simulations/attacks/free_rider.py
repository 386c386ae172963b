"""Free rider: hand the plan back without measuring anything."""

from typing import ClassVar

import numpy as np

from personalization.wire.plan import Plan
from personalization.wire.statistics import StatisticsLayout
from simulations.attacks.base import Attack
from simulations.attacks.fields import Vector, echo


class FreeRider(Attack):
    """All attackers send the plan's own prior back as if they had measured it, to get a model and spend nothing.

    They need no honest vectors. What they send never moves the prior, but it holds on to it, and it votes to keep
    every group that is not dropped. Before there is a prior they send a precision of 0. The plain free rider of
    Fraboni, Vidal and Lorenzi, "Free-rider Attacks on Model Aggregation in Federated Learning", AISTATS 2021.
    """

    kind: ClassVar[str] = "free-rider"

    def forge(
        self, honest: Vector, *, attackers: int, plan: Plan, layout: StatisticsLayout, rng: np.random.Generator
    ) -> Vector:
        """Return the plan's echo; see `Attack.forge`."""
        return echo(plan, layout).repeated(attackers).join()
