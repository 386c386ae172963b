"""Zeros instead of smaller tensors: the same units and products as the dense model has, in fewer bytes."""

from abc import abstractmethod
from collections.abc import Sequence

from torch import nn

from personalization.allocation.footprint import block_weights
from personalization.transformer.layers import Layer, find_layers, linear_weight
from personalization.transformer.trace import Inputs
from personalization.unstructured import pruned_paths, sparse_bytes, zipped_bytes
from simulations.arms.base import Arm, ArmResult, Row, World, client_row
from simulations.arms.models import with_fitted_head
from simulations.fleet_settings import FleetSettings


class ZerosArm(Arm):
    """Single weights of the blocks become zero until the share of them that is left is the budget.

    Zeros alone are not faster: `levels` are 0, for no unit is gone. `bytes` is the size of sparse storage; beside it
    are `bytes_in_full`, with every zero written, and `bytes_zipped`.
    """

    saves_weights_only = True

    def run(self, world: World, settings: FleetSettings) -> ArmResult:
        """Put zeros in every client's model and judge it; clients download the dense model and send nothing."""
        layers = find_layers(world.backbone.model)
        return ArmResult.of([self._row(world, settings, layers, client) for client in world.clients], rounds=0)

    @abstractmethod
    def prune(self, model: nn.Module, layers: Sequence[Layer], inputs: Inputs, share: float) -> nn.Module:
        """Return `model` with a `share` of zeros in the linear modules of its layers, for a client's own `inputs`."""

    def _row(self, world: World, settings: FleetSettings, layers: Sequence[Layer], client: int) -> Row:
        inputs, dense = world.samples(client).inputs, world.backbone.model
        share = _share_of_zeros(dense, layers, world.budget(client, settings))
        model = self.prune(dense, layers, inputs, share)
        found = {
            "weights_kept": _weights_kept(model, layers),
            "evaluations": 0,
            "personalized_layers": [],
            "levels": [0.0] * len(layers),
            "entropy_increase": None,
            "fit_r2": None,
        }
        if settings.adapt_head and not world.is_text:  # text has no mixture of classes to fit a head to
            model = with_fitted_head(model, layers, inputs)
        row = client_row(world, client, model, found, uplink_bytes=0, downlink_bytes=0)
        in_full = row["bytes"]  # zeros are numbers like any other there: as much as the dense model
        sizes = {"bytes": sparse_bytes(model, world.dtype), "bytes_zipped": zipped_bytes(model, world.dtype)}
        return {**row, **sizes, "bytes_in_full": in_full, "downlink_bytes": in_full}


def _share_of_zeros(model: nn.Module, layers: Sequence[Layer], budget: float) -> float:
    """Return which share of the linear modules' weights to zero; the biases that the budget counts stay."""
    weights = sum(linear_weight(model.get_submodule(path)).numel() for path in pruned_paths(layers))
    return (1.0 - budget) * block_weights(layers) / weights


def _weights_kept(model: nn.Module, layers: Sequence[Layer]) -> float:
    weights = [linear_weight(model.get_submodule(path)) for path in pruned_paths(layers)]
    zeros = sum(weight.numel() - int(weight.count_nonzero()) for weight in weights)
    return 1.0 - zeros / block_weights(layers)
