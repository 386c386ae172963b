"""Clients of the bundled data set: what they would measure, and the personal model that a prior leads to."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from client.data import InputFacts
from personalization.cutting.masked import MaskedModel
from personalization.model_files.backbone import Backbone, load_backbone
from personalization.pipeline import personalize
from personalization.sensing.measurement import DensePredictions
from personalization.sensing.prior import Prior
from personalization.sensing.private_trace import compensation, device_trace, fit_split
from personalization.sensing.probes import one_at_a_time, take_samples
from personalization.settings import PersonalizationSettings
from personalization.transformer.layers import find_layers
from personalization.wire.statistics import StatisticsLayout, to_wire
from simulations.evaluation import Evaluator
from simulations.fleet_settings import FleetSettings
from simulations.private_data import FleetData, make_fleet_data

_FIRST_PROBES = 6


@dataclass
class Clients:
    """So many clients of three classes each, and the same number that come later."""

    backbone: Backbone
    data: FleetData
    layout: StatisticsLayout

    @staticmethod
    def load(count: int, seed: int) -> "Clients":
        """Load the bundled model and data."""
        settings = FleetSettings(out=Path(), clients=count, samples=200, reuse=True, seed=seed)
        config = settings.run_config()
        backbone = load_backbone(str(config["model"]))
        data = make_fleet_data(config, count, InputFacts(backbone.preprocessing, backbone.labels))
        levels = len(PersonalizationSettings().levels)
        return Clients(backbone, data, StatisticsLayout(len(find_layers(backbone.model)), levels, 1))

    def measure(self, client: int) -> NDArray[np.float64]:
        """Return [atoms], on the scale of the wire: every layer at every level, measured by itself."""
        settings = PersonalizationSettings(seed=client)
        layers, inputs = find_layers(self.backbone.model), self._inputs(client)
        trace = device_trace(self.backbone.model, layers, inputs, settings)
        count = len(inputs["pixel_values"])
        fit = fit_split(count, settings.held_out_share, np.random.default_rng(client))
        masked = MaskedModel(trace, compensation(settings, fit), measured=~fit)
        found = take_samples(
            masked,
            one_at_a_time(len(layers), self.layout.levels),
            settings.levels,
            measure=DensePredictions(trace, signal="entropy", labels=None, on=~fit).increase,
            available=np.array([layer.units for layer in layers]),
        )
        return to_wire(found.measurements)

    def personal_accuracy(self, client: int, prior: Prior | None) -> tuple[float, int]:
        """Return accuracy and evaluations of a newcomer's personal model: 6 probes of its own, then the cut."""
        result = personalize(
            self.backbone.model,
            self._inputs(client),
            prior=prior,
            settings=PersonalizationSettings(probes=_FIRST_PROBES, seed=client),
        )
        return self._evaluator.row(client, result.model)["personal_accuracy"], result.evaluations

    @property
    def _evaluator(self) -> Evaluator:
        if not hasattr(self, "_made"):
            self._made = Evaluator(self.backbone, self.data, adapt_head=True, latency=False)
        return self._made

    def _inputs(self, client: int) -> dict[str, torch.Tensor]:
        facts = InputFacts(self.backbone.preprocessing, self.backbone.labels)
        return self.data({"partition-id": client}, {}, facts).inputs
