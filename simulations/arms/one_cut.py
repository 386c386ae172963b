"""One mask for all clients: they vote once on what to keep, and all cut the same units."""

import math
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from personalization.allocation.costs import unit_costs
from personalization.wire.plan import Plan
from simulations.arms.base import Arm, ArmResult, World, client_row
from simulations.arms.service import Answer, Service
from simulations.arms.voting import dropped_by_vote
from simulations.fleet_settings import FleetSettings

# A mask is cut as it is: no budget beyond it, nothing probed, nothing restored.
_EXACTLY: Mapping[str, bool | int | float | str] = {"steps": 1, "step-probes": 0, "tolerance": math.inf}


@dataclass(frozen=True)
class Vote:
    """answers: of every client. masks: by budget, the groups [groups] that clients of this budget drop."""

    answers: dict[int, Answer]
    masks: dict[float, NDArray[np.bool_]]


def vote(world: World, settings: FleetSettings, service: Service) -> Vote:
    """Let every client personalize once without a prior, and count what they keep.

    Each takes `settings.probes` probes; its statistics go up as in a round. There is a mask for each budget in the
    fleet, all from the same votes. Raises UserError if a client fails.
    """
    generic = service.generic
    everything = np.zeros(generic.layout.groups, dtype=np.bool_)
    plan = Plan(version=1, prior=None, dropped=everything, probes=settings.probes, budget=settings.budget)
    answers = service.ask(plan, world.clients, budgets=world.budgets)
    kept = np.array([answers[client].vector[generic.layout.field("group_kept")] for client in world.clients])
    # The first client stands for all in what a unit costs, which matters for budgets of measured latency only.
    inputs = world.samples(world.clients[0]).inputs
    costs = unit_costs(settings.budget_kind, world.backbone.model, generic.layers, inputs)
    budgets = sorted({world.budget(client, settings) for client in world.clients})
    return Vote(answers, {budget: dropped_by_vote(kept, generic.groups, costs, budget) for budget in budgets})


class OneCut(Arm):
    """What clients share is the mask; the compensation of what is left is still each client's own."""

    name = "one-cut"
    summary = "one mask for all clients, by vote on groups of units; each compensates it on its own samples"

    def run(self, world: World, settings: FleetSettings) -> ArmResult:
        """Vote, send the mask as a plan, and judge what the clients cut; two messages each way."""
        with tempfile.TemporaryDirectory() as folder:
            service = Service(world, settings, Path(folder))
            voted = vote(world, settings, service)
            rows = {}
            for budget, mask in voted.masks.items():
                clients = [c for c in world.clients if world.budget(c, settings) == budget]
                # The version of the fleet's final pass: with its seed, the same samples are held out.
                plan = Plan(version=max(2, settings.rounds + 1), prior=None, dropped=mask, probes=0, budget=1.0)
                for client, answer in service.ask(plan, clients, config=_EXACTLY).items():
                    first = voted.answers[client]
                    spent = first.found["evaluations"] + answer.found["evaluations"]
                    rows[client] = client_row(
                        world,
                        client,
                        service.model(client),
                        {**answer.found, "evaluations": spent, "personalized_layers": []},
                        uplink_bytes=first.uplink_bytes + answer.uplink_bytes,
                        downlink_bytes=first.downlink_bytes + answer.downlink_bytes,
                    )
        return ArmResult.of([rows[client] for client in world.clients], rounds=2)
