"""What every attack offers: the honest vectors of a round in, forged ones out."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from personalization.errors import UserError
from personalization.wire.plan import Plan
from personalization.wire.statistics import StatisticsLayout
from simulations.attacks.fields import Vector


class Attack(ABC):
    """Attackers see everything, act together and know what the statistics mean.

    They know the plan and all honest vectors of the round before they send theirs. A new attack is one method and one
    line in the registry.
    """

    kind: ClassVar[str]

    @abstractmethod
    def forge(
        self, honest: Vector, *, attackers: int, plan: Plan, layout: StatisticsLayout, rng: np.random.Generator
    ) -> Vector:
        """Return the vectors [attackers, statistics] that the attackers send, valid ones (but for `invalid`).

        honest: what the honest clients send in this round, [honest, statistics], at least one row.
        """


@dataclass(frozen=True, kw_only=True)
class AttackWithStrength(Attack):
    """An attack whose `strength`, a finite number above 0, can be set; what it means stands with each attack."""

    strength: float = 1.0

    def __post_init__(self) -> None:
        """Refuse values that make no sense. Raises UserError."""
        if not 0.0 < self.strength < math.inf:
            raise UserError(f"attack.strength {self.strength}: expected a finite number above 0")
