"""Random: send noise."""

from typing import ClassVar

import numpy as np

from personalization.wire.plan import Plan
from personalization.wire.statistics import StatisticsLayout
from simulations.attacks.base import Attack
from simulations.attacks.fields import Fields, Vector


class Random(Attack):
    """Each attacker draws every entry from [0, 1] alike, and claims to have measured every layer.

    After the noise of Blanchard et al., "Machine Learning with Adversaries", NeurIPS 2017, which is Gaussian; entries
    here are bounded.
    """

    kind: ClassVar[str] = "random"

    def forge(
        self, honest: Vector, *, attackers: int, plan: Plan, layout: StatisticsLayout, rng: np.random.Generator
    ) -> Vector:
        """Return noise; see `Attack.forge`."""
        widths = layout.widths
        noise = {
            "sensitivity": rng.random((attackers, layout.atoms)),
            **{
                name: rng.random((attackers, widths[name]))
                for name in ("level", "personalized", "group_kept", "scalars")
            },
        }
        return Fields(precision=np.ones((attackers, layout.atoms)), **noise).join()
