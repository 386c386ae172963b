"""Sign flip: say the opposite of what an honest client would say."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from personalization.wire.plan import Plan
from personalization.wire.statistics import StatisticsLayout
from simulations.attacks.base import AttackWithStrength
from simulations.attacks.fields import Vector, believed, split


@dataclass(frozen=True, kw_only=True)
class SignFlip(AttackWithStrength):
    """Each attacker mirrors one honest client, drawn at random: what that one needs most is what it calls least needed.

    Sensitivities have no sign to flip. They are mirrored at the middle of the client's own range, on the scale of the
    wire, which turns their order around and keeps their size; votes are mirrored at a half. The attacker claims to
    have measured every layer. strength: multiplies the distance from the middle. After the sign flip of Li et al.,
    "RSA: Byzantine-Robust Stochastic Aggregation Methods", AAAI 2019.
    """

    kind: ClassVar[str] = "sign-flip"

    def forge(
        self, honest: Vector, *, attackers: int, plan: Plan, layout: StatisticsLayout, rng: np.random.Generator
    ) -> Vector:
        """Return the mirrored vectors; see `Attack.forge`."""
        fields = split(honest, layout).picked(rng.integers(len(honest), size=attackers))
        own = np.where(fields.precision > 0, fields.sensitivity, believed(honest, layout, plan))
        middle = (own.min(1, keepdims=True) + own.max(1, keepdims=True)) / 2.0
        return fields.replaced(
            precision=np.ones_like(fields.precision),
            sensitivity=middle - self.strength * (own - middle),
            level=0.5 - self.strength * (fields.level - 0.5),
            personalized=0.5 - self.strength * (fields.personalized - 0.5),
            group_kept=0.5 - self.strength * (fields.group_kept - 0.5),
        ).join()
