"""What a unit adds to the residual stream on average, told from the weights alone.

The server has no data, so it takes the input of a layer as its layer norm leaves it: gamma * z + beta with z standard
normal in every direction. Pre-activations are then jointly Gaussian, and the mean activation of a channel is a
one-dimensional integral (Gauss-Hermite quadrature). A head's mean value is the value projection of beta.
"""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers.activations import ACT2FN

from personalization.transformer.groups import UnitGroups
from personalization.transformer.layers import Layer, LayerKind, Reader, linear_bias, linear_weight

_NODES = 32
_ACTIVATION_KEYS = ("hidden_act", "activation_function", "hidden_activation")


def group_folds(
    model: nn.Module, layers: tuple[Layer, ...], groups: UnitGroups, lacking: NDArray[np.bool_]
) -> dict[int, Tensor]:
    """Return for each layer that lacks a group the vector [outputs] which its lacking units added on average.

    lacking: [groups] over all layers in order. Added to the writer's bias it stands in for the units.
    """
    folds, start = {}, 0
    for layer, layer_groups in zip(layers, groups, strict=True):
        flags = lacking[start : start + len(layer_groups)]
        start += len(layer_groups)
        if flags.any():
            units = np.sort(np.concatenate([g for g, flag in zip(layer_groups, flags, strict=True) if flag]))
            columns = torch.from_numpy(layer.columns(units))
            weight = linear_weight(model.get_submodule(layer.writer)).detach()
            folds[layer.index] = (weight[:, columns].double() @ mean_activations(model, layers, layer)[columns]).float()
    return folds


def mean_activations(model: nn.Module, layers: tuple[Layer, ...], layer: Layer) -> Tensor:
    """Return the expected input [columns] of the layer's writer, in double precision, under the Gaussian model."""
    gamma, beta = _norm_before(model, layers, layer)
    if layer.kind is LayerKind.ATTENTION:
        return _mean_values(model, layer, beta)
    linears = [_linear(model, reader) for reader in layer.readers]
    moments = [(w @ beta + b, (w * gamma).square().sum(1).clamp_min(1e-24)) for w, b in linears]
    activation = _activation(model, layer)
    if len(moments) == 1:
        return _expect(activation, *moments[0])
    gate, up = (0, 1) if "gate" in layer.readers[0].path.rsplit(".", 1)[-1] else (1, 0)
    (mean, variance), (up_mean, _) = moments[gate], moments[up]
    covariance = ((linears[gate][0] * gamma) * (linears[up][0] * gamma)).sum(1)
    slope = covariance / variance
    return _expect(lambda x: activation(x) * (up_mean + slope * (x - mean)), mean, variance)


def _expect(function: Callable[[Tensor], Tensor], mean: Tensor, variance: Tensor) -> Tensor:
    """Return E[function(x)] [channels] for x ~ N(mean, variance), each of [channels]."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(_NODES)
    points = mean + variance.sqrt() * torch.from_numpy(nodes)[:, None]
    share = torch.from_numpy(weights / weights.sum())
    return share @ function(points)


def _mean_values(model: nn.Module, layer: Layer, beta: Tensor) -> Tensor:
    reader = layer.readers[-1]  # the value projection, or the module that holds query, key and value side by side
    weight, bias = _linear(model, reader)
    values = weight @ beta + bias
    head = reader.rows_per_unit
    values = values[-layer.units * head :].view(layer.units, 1, head)
    return values.expand(layer.units, layer.columns_per_unit // head, head).reshape(-1)


def _linear(model: nn.Module, reader: Reader) -> tuple[Tensor, Tensor]:
    module = model.get_submodule(reader.path)
    weight, bias = linear_weight(module).detach().double(), linear_bias(module)
    return weight, torch.zeros(len(weight), dtype=torch.float64) if bias is None else bias.detach().double()


def _activation(model: nn.Module, layer: Layer) -> Callable[[Tensor], Tensor]:
    """Return the non-linearity of an MLP: the block's own module if it has one, else what the config names."""
    for path, module in model.get_submodule(layer.block_path).named_modules():
        if "act" in path.rsplit(".", 1)[-1] and not any(True for _ in module.parameters()):
            own: Callable[[Tensor], Tensor] = module
            return own
    names = (getattr(model.config, key, None) for key in _ACTIVATION_KEYS)
    function = ACT2FN[next((n for n in names if isinstance(n, str)), "gelu")]
    return lambda x: torch.as_tensor(function(x))


def _norm_before(model: nn.Module, layers: tuple[Layer, ...], layer: Layer) -> tuple[Tensor, Tensor]:
    """Return gamma and beta [width] of the norm whose output the layer reads; 1 and 0 where none is found."""
    width = linear_weight(model.get_submodule(layer.readers[0].path)).shape[1]
    block = _norms(model.get_submodule(layer.block_path), width)
    place = 0 if layer.kind is LayerKind.ATTENTION else 1
    norm = block[place] if len(block) > place else None
    if _normalizes_outputs(model, layer, width):
        before = {} if layer.block == 0 else _named(model, layers, layer.block - 1, width)
        outside = [m for path, m in _named_norms(model, width).items() if not path.startswith(_blocks(layer))]
        earlier = list(before.values()) or outside[:1]
        norm = block[0] if place == 1 else (earlier[-1] if earlier else None)
    if norm is None:
        return torch.ones(width, dtype=torch.float64), torch.zeros(width, dtype=torch.float64)
    bias = getattr(norm, "bias", None)
    gamma = norm.get_parameter("weight").detach().double()
    return gamma, torch.zeros_like(gamma) if bias is None else bias.detach().double()


def _normalizes_outputs(model: nn.Module, layer: Layer, width: int) -> bool:
    """Say whether the block normalizes after each layer (BERT): the norm then stands beside the writer."""
    beside = model.get_submodule(layer.writer.rpartition(".")[0])
    return any(_is_norm(child, width) for child in beside.children())


def _blocks(layer: Layer) -> str:
    return layer.block_path.rpartition(".")[0] + "."


def _named(model: nn.Module, layers: tuple[Layer, ...], block: int, width: int) -> Mapping[str, nn.Module]:
    path = next(layer.block_path for layer in layers if layer.block == block)
    return _named_norms(model.get_submodule(path), width)


def _norms(module: nn.Module, width: int) -> list[nn.Module]:
    return list(_named_norms(module, width).values())


def _named_norms(module: nn.Module, width: int) -> dict[str, nn.Module]:
    return {path: child for path, child in module.named_modules() if _is_norm(child, width)}


def _is_norm(module: nn.Module, width: int) -> bool:
    weight = getattr(module, "weight", None)
    return "Norm" in type(module).__name__ and isinstance(weight, Tensor) and tuple(weight.shape) == (width,)
