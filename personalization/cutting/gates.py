"""Gates on the inputs of the writers: a kept unit passes, a removed one is replaced by its mean.

A gated model computes what the cut model computes, at the dense model's cost and without touching a weight.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from personalization.transformer.layers import Layer


def check_kept(layers: Sequence[Layer], kept: Sequence[NDArray[np.int64]]) -> None:
    """Raise ValueError unless `kept` names, for each layer, distinct units that the layer has."""
    if len(kept) != len(layers):
        raise ValueError(f"kept units of {len(kept)} layers were given; the model has {len(layers)}")
    for layer, units in zip(layers, kept, strict=True):
        if len(units) and not (units.min() >= 0 and units.max() < layer.units):
            raise ValueError(f"{layer.name}: a kept unit lies outside 0 to {layer.units - 1}")
        if len(np.unique(units)) != len(units):
            raise ValueError(f"{layer.name}: a unit is named twice among the kept ones")


def column_mask(layer: Layer, units: NDArray[np.int64], device: torch.device | None = None) -> Tensor:
    """Return a bool mask [columns] of the writer's input columns that belong to `units`."""
    mask = torch.zeros(layer.units * layer.columns_per_unit, dtype=torch.bool, device=device)
    mask[torch.from_numpy(layer.columns(units)).to(mask.device)] = True
    return mask


@contextmanager
def gated(
    model: nn.Module, layers: Sequence[Layer], kept: Sequence[NDArray[np.int64]], means: Sequence[Tensor]
) -> Iterator[nn.Module]:
    """Gate `model` while the context lasts: activations of units that are not kept are replaced by their mean.

    kept: unit indices for each layer. means: [columns] for each layer, from `unit_means`. Layers that keep every unit
    run untouched. The hooks are removed however the context ends. Raises ValueError for units that do not exist.
    """
    check_kept(layers, kept)
    with ExitStack() as hooks:
        for layer, units, mean in zip(layers, kept, means, strict=True):
            if len(units) < layer.units:
                hooks.callback(_gate(model.get_submodule(layer.writer), column_mask(layer, units), mean).remove)
        yield model


def _gate(writer: nn.Module, mask: Tensor, mean: Tensor) -> RemovableHandle:
    def replace(_: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
        (inputs,) = args
        return (torch.where(mask.to(inputs.device), inputs, mean.to(inputs)),)

    return writer.register_forward_pre_hook(replace)


@torch.no_grad()
def unit_means(
    model: nn.Module, layers: Sequence[Layer], inputs: Mapping[str, Tensor], *, batch_size: int = 64
) -> tuple[Tensor, ...]:
    """Return for each layer the mean [columns] of its writer's input over all samples and tokens of `inputs`.

    inputs: what the model is called with, each tensor [samples, ...]; tokens that `attention_mask` [samples, tokens]
    leaves out do not count. Sums are kept in double precision.
    """
    sums: dict[int, Tensor] = {}
    counts = dict.fromkeys((layer.index for layer in layers), 0.0)
    mask: Tensor | None = None

    def add_up(index: int, activations: Tensor) -> None:
        weights = activations.new_ones(activations.shape[:-1], dtype=torch.float64)
        if mask is not None and mask.shape == weights.shape:
            weights = mask.to(weights)
        total = weights.reshape(1, -1) @ activations.reshape(-1, activations.shape[-1]).double()
        sums[index] = sums[index] + total[0] if index in sums else total[0]
        counts[index] += float(weights.sum())

    with ExitStack() as hooks:
        for layer in layers:

            def collect(_: nn.Module, args: tuple[Tensor], index: int = layer.index) -> None:
                add_up(index, args[0])

            hooks.callback(model.get_submodule(layer.writer).register_forward_pre_hook(collect).remove)
        for start in range(0, len(next(iter(inputs.values()))), batch_size):
            batch = {name: tensor[start : start + batch_size] for name, tensor in inputs.items()}
            mask = batch.get("attention_mask")
            model(**batch)
    dtype = next(model.parameters()).dtype
    return tuple((sums[layer.index] / counts[layer.index]).to(dtype) for layer in layers)
