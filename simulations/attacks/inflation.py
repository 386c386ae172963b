"""Inflation: tell the truth, many times too large."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from personalization.wire.plan import Plan
from personalization.wire.statistics import StatisticsLayout, from_wire, to_wire
from simulations.attacks.base import AttackWithStrength
from simulations.attacks.fields import Vector, average


@dataclass(frozen=True, kw_only=True)
class Inflation(AttackWithStrength):
    """All attackers send the honest mean with every sensitivity in nats and every kept share `strength` times as large.

    What exceeds the range of the wire is clipped to it. Levels fall by the same factor, and the attacker claims to
    have measured every layer. After the boosting of Bhagoji et al., "Analyzing Federated Learning through an
    Adversarial Lens", ICML 2019.
    """

    kind: ClassVar[str] = "inflation"
    strength: float = 100.0

    def forge(
        self, honest: Vector, *, attackers: int, plan: Plan, layout: StatisticsLayout, rng: np.random.Generator
    ) -> Vector:
        """Return the inflated vectors; see `Attack.forge`."""
        mean = average(honest, layout, plan)
        inflated = mean.replaced(
            precision=np.ones_like(mean.precision),
            sensitivity=to_wire(self.strength * from_wire(mean.sensitivity)),
            level=mean.level / self.strength,
            personalized=self.strength * mean.personalized,
            group_kept=self.strength * mean.group_kept,
        )
        return inflated.repeated(attackers).join()
