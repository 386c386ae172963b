"""What a unit costs in the measure of the budget: weights, bytes, multiply-accumulates or measured latency."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import nn

from personalization.allocation.allocate import Costs
from personalization.allocation.footprint import count_macs, measure_latency
from personalization.cutting.cut_model import cut_model
from personalization.model_files.storage import stored_bytes
from personalization.settings import BudgetKind
from personalization.transformer.layers import Layer, LayerKind, linear_bias, linear_weight
from personalization.transformer.trace import Inputs

BYTES_PER_WEIGHT = 4
# What a safetensors header says of a tensor beside the path of its module, at most: type, shape and two offsets.
_HEADER_BYTES = 100


def unit_costs(kind: BudgetKind, model: nn.Module, layers: Sequence[Layer], inputs: Inputs) -> Costs:
    """Return the costs of `model` for budgets of `kind`.

    weights: of the blocks alone. bytes: of the stored model in single precision, with the biases that writers get once
    anything is cut, where they have none. macs: multiply-accumulates of one sample. latency: milliseconds of one
    sample, measured here, shared out by the weights within each kind of layer.
    """
    one = {name: value[:1] for name, value in inputs.items()}
    weights = np.array([layer.weights_per_unit for layer in layers], dtype=np.float64)
    if kind == "weights":
        return Costs(weights, 0.0)
    if kind == "bytes":
        per_unit, total = weights * BYTES_PER_WEIGHT, float(stored_bytes(model))
    elif kind == "macs":
        per_unit, total = _marginal(lambda m: float(count_macs(m, one, layers)), model, layers)
    else:
        per_unit, total = _marginal(lambda m: measure_latency(m, one), model, layers)
    units = np.array([layer.units for layer in layers], dtype=np.float64)
    new = _stored_biases(new_biases(model, layers)) if kind == "bytes" else 0.0
    return Costs(per_unit, max(total - float(per_unit @ units), 0.0), new)


def new_biases(model: nn.Module, layers: Sequence[Layer]) -> dict[str, int]:
    """Return how many weights the bias has that each writer without any gets once a model is cut, by its path."""
    writers = {layer.writer: model.get_submodule(layer.writer) for layer in layers}
    return {path: len(linear_weight(writer)) for path, writer in writers.items() if linear_bias(writer) is None}


def _stored_biases(weights: Mapping[str, int]) -> float:
    """Return the bytes that biases of so many `weights` take in a file, with their entries in its header."""
    return float(sum(BYTES_PER_WEIGHT * count + len(path) + _HEADER_BYTES for path, count in weights.items()))


def _marginal(
    measure: Callable[[nn.Module], float], model: nn.Module, layers: Sequence[Layer]
) -> tuple[NDArray[np.float64], float]:
    """Measure what half of the units of each kind of layer cost, shared out by weights; and the dense model."""
    total, per_unit = measure(model), np.zeros(len(layers))
    for kind in LayerKind:
        kept = [np.arange(layer.units // 2 if layer.kind is kind else layer.units) for layer in layers]
        removed = sum((layer.units - len(k)) * layer.weights_per_unit for layer, k in zip(layers, kept, strict=True))
        # A measured latency can come out below zero; a unit never costs nothing, or allocation would be free.
        per_weight = max(total - measure(cut_model(model, layers, kept)), 1e-3 * total) / max(removed, 1)
        for layer in layers:
            if layer.kind is kind:
                per_unit[layer.index] = per_weight * layer.weights_per_unit
    return per_unit, total
