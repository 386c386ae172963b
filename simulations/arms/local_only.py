"""Every client alone: it measures each layer at each level by itself and knows nothing of a fleet."""

from personalization.model_files.storage import stored_bytes
from personalization.pipeline import personalize
from personalization.settings import PersonalizationSettings
from personalization.transformer.layers import find_layers
from simulations.arms.base import Arm, ArmResult, World, client_row, client_settings, findings, signal_labels
from simulations.fleet_settings import FleetSettings


class LocalOnly(Arm):
    """No fleet: as many probes as there are atoms (layers times levels). What a fleet saves is measured from here."""

    name = "local-only"
    summary = "each client alone: every layer measured at every level, no prior, nothing sent"

    def run(self, world: World, settings: FleetSettings) -> ArmResult:
        """Personalize every client by itself, with the seed of the fleet's final pass."""
        model = world.backbone.model
        size = stored_bytes(model, world.dtype)
        atoms = len(find_layers(model)) * len(PersonalizationSettings().levels)
        rows = []
        for client in world.clients:
            own, samples = client_settings(world, settings, client, probes=atoms), world.samples(client)
            labels = signal_labels(samples, own)
            result = personalize(model, samples.inputs, labels=labels, training=samples.training, settings=own)
            rows.append(client_row(world, client, result.model, findings(result), uplink_bytes=0, downlink_bytes=size))
        return ArmResult.of(rows, rounds=0)
