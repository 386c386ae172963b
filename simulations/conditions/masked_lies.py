"""Attackers in secure sums: what they send is masked like everybody's, so they lie before it is."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from client.data import Config
from personalization.wire.plan import Plan
from personalization.wire.statistics import StatisticsLayout
from simulations.attacks.base import Attack
from simulations.attacks.fields import Vector, echo
from simulations.conditions.roles import Roles

FORGE_STREAM = 1012  # what a random stream is for, see roles.py


@dataclass
class MaskedLies:
    """Takes the place of attackers' vectors, in their own client apps.

    As in the open, attackers know the honest vectors of their round, which is more than secure sums tell them: what a
    strategy keeps up against these it keeps up against those who know less. Honest clients have to answer first.
    """

    attack: Attack
    roles: Roles
    seed: int
    _version: int = -1
    _honest: dict[int, Vector] = field(default_factory=dict)
    _asked: Sequence[int] = ()
    _forged: dict[int, Vector] = field(default_factory=dict)

    def expect(self, attackers: Sequence[int]) -> None:
        """Say which attackers are asked next; everybody else of their round has answered."""
        self._asked = tuple(attackers)

    def __call__(self, node_config: Config, plan: Plan, layout: StatisticsLayout, vector: Vector) -> Vector:
        """Return what a client sends in the place of its vector."""
        if plan.version != self._version:
            self._version, self._honest, self._forged = plan.version, {}, {}
        client = int(node_config["partition-id"])
        if client not in self.roles.attackers:
            self._honest[client] = vector
            return vector
        if not self._forged:
            self._forged = self._forge(plan, layout)
        return self._forged[client]

    def _forge(self, plan: Plan, layout: StatisticsLayout) -> dict[int, Vector]:
        # Where nobody honest replies, there is nothing to see but the plan.
        seen = np.stack([*self._honest.values()]) if self._honest else echo(plan, layout).join()
        rng = np.random.default_rng([self.seed, FORGE_STREAM, plan.version, self._asked[0]])
        vectors = self.attack.forge(seen, attackers=len(self._asked), plan=plan, layout=layout, rng=rng)
        return dict(zip(self._asked, vectors, strict=True))
