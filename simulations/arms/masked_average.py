"""One cut model for several clients: each compensates the same mask and trains it, and the weights are averaged."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from flwr.app import ConfigRecord
from numpy.typing import NDArray
from torch import nn

from personalization.allocation.footprint import block_weights, kept_weights
from personalization.cutting.cut_model import cut_model
from personalization.pipeline import Personalization, personalize
from personalization.sensing.prior import CERTAINTY, Prior
from personalization.transformer.groups import UnitGroups, dropped_units
from personalization.transformer.layers import find_layers, linear_weight
from simulations.arms.averaging import Averaging
from simulations.arms.base import World, client_settings, signal_labels
from simulations.arms.training import Training, Weights, read_weights, train, with_weights
from simulations.fleet_settings import FleetSettings


class MaskedAverage:
    """The model that is left when every client of `world` drops the same groups of its backbone."""

    def __init__(
        self,
        world: World,
        settings: FleetSettings,
        groups: UnitGroups,
        mask: NDArray[np.bool_],
        training: Training,
    ) -> None:
        """Take the groups [groups] that `mask` drops, and how clients train what is left."""
        self._world, self._settings, self._training, self._mask = world, settings, training, mask
        self.dense = world.backbone.model
        self.layers = find_layers(self.dense)
        self._dropped = dropped_units(groups, mask)
        self.kept = [
            np.setdiff1d(np.arange(layer.units), gone) for layer, gone in zip(self.layers, self._dropped, strict=True)
        ]

    @property
    def levels(self) -> list[float]:
        """The share of each layer's units that is gone."""
        return [1.0 - len(units) / layer.units for units, layer in zip(self.kept, self.layers, strict=True)]

    @property
    def weights_kept(self) -> float:
        """The share of the blocks' weights that is left."""
        return kept_weights(self.layers, self.kept) / block_weights(self.layers)

    def average(self, averaging: Averaging, clients: Sequence[int]) -> nn.Module:
        """Return the average over one round in which each of `clients` compensates, trains and sends its weights."""
        config = ConfigRecord({"dropped": np.packbits(self._mask).tobytes()})
        start = read_weights(self.dense)
        weights = averaging.rounds(start, self._work, clients=clients, rounds=1, fraction=1.0, config=config)
        return with_weights(self._shape(), weights)

    def compensated(self, client: int, model: nn.Module) -> Personalization:
        """Return `model` (of the backbone's shape) cut to exactly the mask, refitted to the client's samples."""
        samples = self._world.samples(client)
        settings = client_settings(self._world, self._settings, client, probes=0)
        atoms = len(self.layers) * len(settings.levels)
        return personalize(
            model,
            samples.inputs,
            labels=signal_labels(samples, settings),
            prior=Prior(np.ones(atoms), np.full(atoms, CERTAINTY)),
            dropped_units=self._dropped,
            # The head stays the fleet's while it is averaged; each client fits the average to its own classes.
            settings=replace(settings, budget=1.0, steps=1, step_probes=0, tolerance=math.inf, adapt_head=False),
        )

    def _work(self, client: int, weights: Weights, _: ConfigRecord) -> Weights:
        result = self.compensated(client, with_weights(self.dense, weights))
        settings = client_settings(self._world, self._settings, client, probes=0)
        train(result.model, self._world.samples(client), self._training, seed=settings.seed)
        return read_weights(result.model)

    def _shape(self) -> nn.Module:
        """Return a cut model of the shape that every client's has, writers with a bias."""
        writers = {}
        for layer, units in zip(self.layers, self.kept, strict=True):
            weight = linear_weight(self.dense.get_submodule(layer.writer)).detach()
            writers[layer.index] = (weight[:, layer.columns(units)], weight.new_zeros(len(weight)))
        return cut_model(self.dense, self.layers, self.kept, writers)
