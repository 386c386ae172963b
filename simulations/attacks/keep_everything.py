"""Keep everything: call all layers vital, so that nothing is dropped and the prior tells nobody anything."""

from typing import ClassVar

import numpy as np

from personalization.wire.plan import Plan
from personalization.wire.statistics import StatisticsLayout
from simulations.attacks.base import Attack
from simulations.attacks.fields import Vector, average


class KeepEverything(Attack):
    """All attackers call every layer as sensitive as the wire can say and personalized, and keep every group.

    They claim to have measured every layer. Made for statistics of this kind: its aim is that models stay large and
    that every client has to search for itself.
    """

    kind: ClassVar[str] = "keep-everything"

    def forge(
        self, honest: Vector, *, attackers: int, plan: Plan, layout: StatisticsLayout, rng: np.random.Generator
    ) -> Vector:
        """Return vectors that ask for everything; see `Attack.forge`."""
        mean = average(honest, layout, plan)
        wanted = mean.replaced(
            precision=np.ones_like(mean.precision),
            sensitivity=np.ones_like(mean.sensitivity),
            level=np.zeros_like(mean.level),
            personalized=np.ones_like(mean.personalized),
            group_kept=np.ones_like(mean.group_kept),
        )
        return wanted.repeated(attackers).join()
