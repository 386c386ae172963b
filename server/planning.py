"""From one round's reduced statistics to the next plan: what the fleet knows by now, and what everybody can drop."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from personalization.errors import UserError
from personalization.plan import Plan
from personalization.prior import Prior
from personalization.statistics import StatisticsLayout, fleet_prior

Vector = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class PlanningSettings:
    """How the server learns and when it drops.

    decay: weight of what earlier rounds found, against 1 for the last one; a half forgets half of it every round.
    drop_share: a group is dropped when the fleet keeps at most this share of it on average.
    drop_clients: fewest replies on which a group is dropped.
    drop_personalized: a layer loses groups only while fewer than this share of clients call it personalized.
    restore_personalized: a layer gets its groups back once more than this share of clients call it personalized.
    restore_every: every so many rounds all dropped groups are put back on probation; 0 is never.
    """

    decay: float = 0.5
    drop_share: float = 0.02
    drop_clients: int = 5
    drop_personalized: float = 0.5
    restore_personalized: float = 0.5
    restore_every: int = 0

    def __post_init__(self) -> None:
        """Refuse values that make no sense."""
        for name in ("decay", "drop_share", "drop_personalized", "restore_personalized"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise UserError(f"{name} {getattr(self, name)}: expected a share from 0 to 1")
        if self.drop_clients < 1 or self.restore_every < 0:
            raise UserError("drop_clients must be 1 or more and restore_every 0 or more")


@dataclass(frozen=True)
class FleetKnowledge:
    """What the server carries from round to round.

    precision [atoms]: summed over clients and, with decay, over rounds. weighted [atoms]: the same sum of precision
    times sensitivity on the scale of the wire. dropped [groups].
    """

    precision: Vector
    weighted: Vector
    dropped: NDArray[np.bool_] = field()

    @staticmethod
    def empty(layout: StatisticsLayout) -> "FleetKnowledge":
        """Return what is known before the first round: nothing."""
        return FleetKnowledge(np.zeros(layout.atoms), np.zeros(layout.atoms), np.zeros(layout.groups, dtype=np.bool_))

    def prior(self, layout: StatisticsLayout) -> Prior | None:
        """Return the fleet's prior, None while nobody has measured anything."""
        if not self.precision.any():
            return None
        vector = np.zeros(layout.size)
        vector[layout.field("precision")] = self.precision
        vector[layout.field("weighted_sensitivity")] = self.weighted
        return fleet_prior(vector, layout)

    def plan(self, layout: StatisticsLayout, *, version: int, probes: int, budget: float) -> Plan:
        """Return the plan for a round; `version` must rise from plan to plan."""
        return Plan(version=version, prior=self.prior(layout), dropped=self.dropped, probes=probes, budget=budget)

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` takes; numbers survive exactly."""
        return {
            "precision": self.precision.tolist(),
            "weighted": self.weighted.tolist(),
            "dropped": np.flatnonzero(self.dropped).tolist(),
            "groups": len(self.dropped),
        }

    @staticmethod
    def from_json(record: dict[str, Any]) -> "FleetKnowledge":
        """Return the knowledge in `record`."""
        dropped = np.zeros(record["groups"], dtype=np.bool_)
        dropped[record["dropped"]] = True
        return FleetKnowledge(np.array(record["precision"]), np.array(record["weighted"]), dropped)


def learn(
    knowledge: FleetKnowledge,
    reduced: Vector,
    layout: StatisticsLayout,
    group_layer: NDArray[np.int64],
    *,
    clients: int,
    round_number: int,
    settings: PlanningSettings,
) -> FleetKnowledge:
    """Return what is known after a round whose `clients` replies were reduced to `reduced` [statistics].

    group_layer [groups]: the layer of each group. Sensitivities add up weighted by precision, older rounds with
    decay. For dropping and restoring see PlanningSettings.
    """
    precision = settings.decay * knowledge.precision + clients * reduced[layout.field("precision")]
    weighted = settings.decay * knowledge.weighted + clients * reduced[layout.field("weighted_sensitivity")]
    personalized = reduced[layout.field("personalized")][group_layer]
    kept = reduced[layout.field("group_kept")]
    probation = settings.restore_every > 0 and round_number % settings.restore_every == 0
    restored = (personalized > settings.restore_personalized) | probation
    unwanted = (kept <= settings.drop_share) & (personalized < settings.drop_personalized)
    # A group that is dropped already reports 0 kept, which says nothing new: it stays until it is restored.
    fresh = unwanted & ~knowledge.dropped & (clients >= settings.drop_clients)
    dropped = (knowledge.dropped & ~restored) | fresh
    return FleetKnowledge(precision, weighted, dropped)
