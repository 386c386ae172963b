"""Drop what others need: call the layers free on which the honest clients depend most."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from personalization.errors import UserError
from personalization.wire.plan import Plan
from personalization.wire.statistics import StatisticsLayout
from simulations.attacks.base import AttackWithStrength
from simulations.attacks.fields import Vector, average


@dataclass(frozen=True, kw_only=True)
class DropWhatOthersNeed(AttackWithStrength):
    """All attackers say that the layers which honest clients need most cost nothing, and vote their groups away.

    strength: the share of the layers, and of the groups, that is attacked, above 0 to 1. All claimed precision goes to
    the attacked layers, where a strategy that bounds what a client can claim in sum then feels it most; about the
    others the attackers say nothing new. Made for statistics of this kind.
    """

    kind: ClassVar[str] = "drop-what-others-need"
    strength: float = 0.5

    def __post_init__(self) -> None:
        """Refuse shares above 1. Raises UserError."""
        super().__post_init__()
        if self.strength > 1.0:
            raise UserError(f"attack.strength {self.strength}: expected a share above 0 and at most 1")

    def forge(
        self, honest: Vector, *, attackers: int, plan: Plan, layout: StatisticsLayout, rng: np.random.Generator
    ) -> Vector:
        """Return vectors that give away what honest clients need; see `Attack.forge`."""
        mean = average(honest, layout, plan)
        layers = self._highest(mean.sensitivity[0].reshape(layout.layers, layout.levels).mean(1))
        atoms = np.repeat(layers, layout.levels)
        groups = self._highest(mean.group_kept[0])
        lie = mean.replaced(
            precision=atoms[None].astype(np.float64),
            sensitivity=np.where(atoms, 0.0, mean.sensitivity),
            level=np.where(layers, 1.0, mean.level),
            personalized=np.where(layers, 0.0, mean.personalized),
            group_kept=np.where(groups, 0.0, mean.group_kept),
        )
        return lie.repeated(attackers).join()

    def _highest(self, values: Vector) -> NDArray[np.bool_]:
        chosen = np.zeros(len(values), dtype=np.bool_)
        chosen[np.argsort(-values, kind="stable")[: math.ceil(self.strength * len(values))]] = True
        return chosen
