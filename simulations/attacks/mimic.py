"""Mimic: repeat what one honest client says, so that it counts many times."""

from typing import ClassVar

import numpy as np

from personalization.wire.plan import Plan
from personalization.wire.statistics import StatisticsLayout
from simulations.attacks.base import Attack
from simulations.attacks.fields import Vector


class Mimic(Attack):
    """All attackers send the vector of the same honest client, the one furthest out where honest clients differ most.

    That is the direction of the greatest variance of the honest vectors. No single vector is a lie, and none can be
    found out. Karimireddy, He and Jaggi, "Byzantine-Robust Learning on Heterogeneous Datasets via Bucketing",
    ICLR 2022, who learn the direction in the first rounds; here the attackers see it in every round.
    """

    kind: ClassVar[str] = "mimic"

    def forge(
        self, honest: Vector, *, attackers: int, plan: Plan, layout: StatisticsLayout, rng: np.random.Generator
    ) -> Vector:
        """Return the same honest vector for every attacker; see `Attack.forge`."""
        centered = honest - honest.mean(0)
        # The signs of singular vectors are arbitrary: distances along the direction do not depend on them.
        left, singular, _ = np.linalg.svd(centered, full_matrices=False)
        chosen = int(np.argmax(np.abs(left[:, 0] * singular[0])))
        return np.repeat(honest[chosen : chosen + 1], attackers, axis=0)
