"""The dense model: nothing is cut, only its head is fitted as a personal model's is."""

from personalization.model_files.storage import stored_bytes
from personalization.transformer.layers import find_layers
from simulations.arms.base import Arm, ArmResult, World, client_row
from simulations.arms.models import with_fitted_head
from simulations.fleet_settings import FleetSettings


class Dense(Arm):
    """No compression: what a budget costs is measured from here. Each client downloads the model and sends nothing."""

    name = "dense"
    summary = "the whole model, its head fitted to the client's classes"

    def run(self, world: World, settings: FleetSettings) -> ArmResult:
        """Judge the dense model for every client."""
        model = world.backbone.model
        layers = find_layers(model)
        size = stored_bytes(model, world.dtype)
        found = {
            "weights_kept": 1.0,
            "evaluations": 0,
            "personalized_layers": [],
            "levels": [0.0] * len(layers),
            "entropy_increase": 0.0,
            "fit_r2": None,
        }
        fitted = settings.adapt_head and not world.is_text  # text has no mixture of classes to fit a head to
        rows = []
        for client in world.clients:
            own = with_fitted_head(model, layers, world.samples(client).inputs) if fitted else model
            rows.append(client_row(world, client, own, found, uplink_bytes=0, downlink_bytes=size))
        return ArmResult.of(rows, rounds=0)
