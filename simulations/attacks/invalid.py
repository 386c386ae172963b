"""Invalid: send what is no statistics vector at all."""

from typing import ClassVar

import numpy as np

from personalization.wire.plan import Plan
from personalization.wire.statistics import StatisticsLayout
from simulations.attacks.base import Attack
from simulations.attacks.fields import Vector


class Invalid(Attack):
    """The attackers send, by turns, nothing but NaN, infinity and a number above 1. A server must refuse each."""

    kind: ClassVar[str] = "invalid"

    def forge(
        self, honest: Vector, *, attackers: int, plan: Plan, layout: StatisticsLayout, rng: np.random.Generator
    ) -> Vector:
        """Return vectors that are not valid; see `Attack.forge`."""
        values = np.resize(np.array([np.nan, np.inf, 2.0]), attackers)
        return np.repeat(values[:, None], layout.size, axis=1)
