"""Cuts by a profile of levels: nothing is measured, everything else is as in a fleet."""

from dataclasses import replace
from typing import ClassVar

import numpy as np

from personalization.allocation.costs import unit_costs
from personalization.allocation.profiles import profile_curves, profile_levels, profile_prior
from personalization.data.tasks import PrivateSamples
from personalization.model_files.storage import stored_bytes
from personalization.pipeline import Personalization, personalize
from personalization.sensing.probes import probe_levels
from personalization.settings import PersonalizationSettings
from personalization.transformer.layers import find_layers
from simulations.arms.base import Arm, ArmResult, World, client_row, client_settings, findings, signal_labels
from simulations.fleet_settings import FleetSettings


class ProfileArm(Arm):
    """Levels come from `profile` (see personalization.allocation.profiles) instead of from measurements.

    Clients believe the profile as they would a fleet's prior that is certain of every layer, and take no probes;
    ranking, compensation, budget and tolerance are those of every personal model.
    """

    profile: ClassVar[str]

    def run(self, world: World, settings: FleetSettings) -> ArmResult:
        """Cut every client's model by the profile, with the seed of the fleet's final pass; nothing is sent."""
        size = stored_bytes(world.backbone.model, world.dtype)
        rows = []
        for client in world.clients:
            result = self._cut(world, world.samples(client), client_settings(world, settings, client, probes=0))
            # The profile calls no layer personal, whatever share of the weights a layer has.
            found = {**findings(result), "personalized_layers": []}
            rows.append(client_row(world, client, result.model, found, uplink_bytes=0, downlink_bytes=size))
        return ArmResult.of(rows, rounds=0)

    def _cut(self, world: World, samples: PrivateSamples, own: PersonalizationSettings) -> Personalization:
        model = world.backbone.model
        layers = find_layers(model)
        costs = unit_costs(own.budget_kind, model, layers, samples.inputs)
        of_layers = costs.per_unit * np.array([layer.units for layer in layers])
        curves = profile_curves(of_layers, profile_levels(self.profile, layers))
        return personalize(
            model,
            samples.inputs,
            labels=signal_labels(samples, own),
            training=samples.training,
            prior=profile_prior(curves, probe_levels(layers, own.levels)),
            settings=replace(own, solver="deviation", step_probes=0),
        )
