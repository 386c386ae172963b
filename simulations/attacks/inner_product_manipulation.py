"""Inner product manipulation: a small step, but in the opposite direction."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from personalization.wire.plan import Plan
from personalization.wire.statistics import StatisticsLayout
from simulations.attacks.base import AttackWithStrength
from simulations.attacks.fields import Vector, average


@dataclass(frozen=True, kw_only=True)
class InnerProductManipulation(AttackWithStrength):
    """All attackers send -epsilon times the honest mean, with epsilon = `strength`.

    Statistics have no zero to turn around: what says anything is how an entry differs from the others of its field,
    so that difference is what is multiplied. The attacker claims to have measured every layer. Xie, Koyejo and Gupta,
    "Fall of Empires: Breaking Byzantine-tolerant SGD by Inner Product Manipulation", UAI 2019; a small epsilon hides
    among honest vectors, a large one turns plain means.
    """

    kind: ClassVar[str] = "inner-product-manipulation"
    strength: float = 0.5

    def forge(
        self, honest: Vector, *, attackers: int, plan: Plan, layout: StatisticsLayout, rng: np.random.Generator
    ) -> Vector:
        """Return the turned vectors; see `Attack.forge`."""
        mean = average(honest, layout, plan)
        turned = mean.replaced(
            precision=np.ones_like(mean.precision),
            sensitivity=self._turned(mean.sensitivity),
            level=self._turned(mean.level),
            personalized=self._turned(mean.personalized),
            group_kept=self._turned(mean.group_kept),
        )
        return turned.repeated(attackers).join()

    def _turned(self, mean: Vector) -> Vector:
        center = mean.mean()
        return np.asarray(center - self.strength * (mean - center), dtype=np.float64)
