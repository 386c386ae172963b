"""A little is enough: lie no further from the honest mean than honest clients stand themselves."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from personalization.wire.plan import Plan
from personalization.wire.statistics import StatisticsLayout
from simulations.attacks.base import AttackWithStrength
from simulations.attacks.fields import Vector, average, split


@dataclass(frozen=True, kw_only=True)
class ALittleIsEnough(AttackWithStrength):
    """All attackers send mean +- z * std of the honest clients, entry by entry, with z = `strength`.

    The sign is against what the fleet says: what stands above the average of its field goes down, the rest up;
    precision always up. Mean and deviation of a sensitivity are over those who measured it. Baruch et al., "A Little
    Is Enough: Circumventing Defenses For Distributed Learning", NeurIPS 2019, whose bound z_max from the numbers of
    clients (section 3.2) is only 0.16 for 4 attackers among 20; the default of 1 is harder to withstand.
    """

    kind: ClassVar[str] = "a-little-is-enough"

    def forge(
        self, honest: Vector, *, attackers: int, plan: Plan, layout: StatisticsLayout, rng: np.random.Generator
    ) -> Vector:
        """Return the vectors just off the mean; see `Attack.forge`."""
        fields, mean = split(honest, layout), average(honest, layout, plan)
        evidence = np.maximum(fields.precision.sum(0), np.finfo(float).tiny)
        variance = (fields.precision * (fields.sensitivity - mean.sensitivity) ** 2).sum(0) / evidence
        lie = mean.replaced(
            precision=mean.precision + self.strength * fields.precision.std(0),
            sensitivity=self._against(mean.sensitivity, np.sqrt(variance)),
            level=self._against(mean.level, fields.level.std(0)),
            personalized=self._against(mean.personalized, fields.personalized.std(0)),
            group_kept=self._against(mean.group_kept, fields.group_kept.std(0)),
        )
        return lie.repeated(attackers).join()

    def _against(self, mean: Vector, deviation: Vector) -> Vector:
        return mean + np.where(mean > mean.mean(), -1.0, 1.0) * self.strength * deviation
