"""Groups: fixed sets of units that mean the same to every client, so that statistics of a fleet line up."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from personalization.transformer.layers import Layer, LayerKind, linear_weight

MLP_GROUPS = 16

UnitGroups = tuple[tuple[NDArray[np.int64], ...], ...]


def unit_norms(model: nn.Module, layer: Layer) -> NDArray[np.float64]:
    """Return for each unit the norm of its reading rows times the norm of its writing columns, [units]."""
    units = np.arange(layer.units)
    reading = np.zeros(layer.units)
    for reader in layer.readers:
        rows = linear_weight(model.get_submodule(reader.path)).detach().float().square().sum(1).numpy()
        picked = rows[layer.rows(reader, units)].reshape(reader.parts, layer.units, reader.rows_per_unit)
        reading += picked.sum(axis=(0, 2))
    columns = linear_weight(model.get_submodule(layer.writer)).detach().float().square().sum(0).numpy()
    writing = columns.reshape(layer.units, layer.columns_per_unit).sum(1)
    return np.asarray(np.sqrt(reading * writing), dtype=np.float64)


def unit_groups(model: nn.Module, layers: Sequence[Layer], mlp_groups: int = MLP_GROUPS) -> UnitGroups:
    """Return per layer its groups, each a sorted array of unit indices.

    A head is a group of its own. The channels of an MLP are ordered by weight norm and split into `mlp_groups` runs
    of equal size (fewer where there are fewer channels), so that what nobody needs tends to stand together. The
    groups depend on the backbone's weights alone: server and clients find the same ones without talking about them.
    """
    groups = []
    with torch.no_grad():
        for layer in layers:
            if layer.kind is LayerKind.ATTENTION:
                groups.append(tuple(np.array([unit], dtype=np.int64) for unit in range(layer.units)))
            else:
                order = np.argsort(unit_norms(model, layer), kind="stable")
                parts = np.array_split(order, min(mlp_groups, layer.units))
                groups.append(tuple(np.sort(part).astype(np.int64) for part in parts))
    return tuple(groups)


def dropped_units(groups: UnitGroups, dropped: NDArray[np.bool_]) -> tuple[NDArray[np.int64], ...]:
    """Return per layer the sorted units that lie in dropped groups; `dropped` is [groups] over all layers in order."""
    units, start = [], 0
    for layer_groups in groups:
        gone = [g for g, flag in zip(layer_groups, dropped[start : start + len(layer_groups)], strict=True) if flag]
        units.append(np.sort(np.concatenate(gone)) if gone else np.empty(0, dtype=np.int64))
        start += len(layer_groups)
    return tuple(units)


def share_kept(groups: UnitGroups, kept: Sequence[NDArray[np.int64]]) -> NDArray[np.float64]:
    """Return for every group the share of its units that are kept, [groups] over all layers in order."""
    shares = [
        np.isin(group, units).mean() for layer_groups, units in zip(groups, kept, strict=True) for group in layer_groups
    ]
    return np.array(shares, dtype=np.float64)
