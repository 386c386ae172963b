"""From one round's reduced statistics to the next plan: what the fleet knows by now, and what everybody can drop."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from personalization.errors import UserError
from personalization.sensing.prior import Prior
from personalization.wire.plan import Plan
from personalization.wire.statistics import StatisticsLayout, fleet_prior

Vector = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class PlanningSettings:
    """How the server learns and when it drops.

    decay: weight of what earlier rounds found, against 1 for the last one; a half forgets half of it every round.
    drop_share: a group is dropped when the fleet keeps at most this share of it on average.
    drop_clients: fewest replies on which a group is dropped, over all rounds since it was handed out. What none of 25
        clients keeps, at most 11 % of the fleet need, with 95 % confidence (1 - 0.05 ** (1 / 25)).
    drop_personalized: a layer loses groups only while fewer than this share of clients call it personalized.
    restore_personalized: a layer gets its groups back once more than this share of clients call it personalized.
    restore_every: every so many rounds all dropped groups are put back on probation; 0 is never.
    """

    decay: float = 0.5
    drop_share: float = 0.02
    drop_clients: int = 25
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
    times sensitivity on the scale of the wire. kept [groups]: the sum of the shares that clients kept, and replies
    [groups] the number of replies, both over all rounds since the group was last handed out. dropped [groups].
    """

    precision: Vector
    weighted: Vector
    kept: Vector
    replies: Vector
    dropped: NDArray[np.bool_]

    @staticmethod
    def empty(layout: StatisticsLayout) -> "FleetKnowledge":
        """Return what is known before the first round: nothing."""
        atoms, groups = np.zeros(layout.atoms), np.zeros(layout.groups)
        return FleetKnowledge(atoms, atoms, groups, groups, groups.astype(np.bool_))

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
            "kept": self.kept.tolist(),
            "replies": self.replies.tolist(),
            "dropped": np.flatnonzero(self.dropped).tolist(),
        }

    @staticmethod
    def from_json(record: dict[str, Any]) -> "FleetKnowledge":
        """Return the knowledge in `record`."""
        sums = {key: np.array(record[key], dtype=np.float64) for key in ("precision", "weighted", "kept", "replies")}
        dropped = np.zeros(len(sums["kept"]), dtype=np.bool_)
        dropped[record["dropped"]] = True
        return FleetKnowledge(**sums, dropped=dropped)


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
    kept = knowledge.kept + clients * reduced[layout.field("group_kept")]
    replies = knowledge.replies + clients
    probation = settings.restore_every > 0 and round_number % settings.restore_every == 0
    restored = (personalized > settings.restore_personalized) | probation
    unwanted = (kept <= settings.drop_share * replies) & (personalized < settings.drop_personalized)
    fresh = unwanted & ~knowledge.dropped & (replies >= settings.drop_clients)
    dropped = (knowledge.dropped & ~restored) | fresh
    # A group that is dropped reports 0 kept, which says nothing: it stays until it is restored, and begins anew then.
    handed_out = ~(dropped | knowledge.dropped)
    return FleetKnowledge(precision, weighted, kept * handed_out, replies * handed_out, dropped)
