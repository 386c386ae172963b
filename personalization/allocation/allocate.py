"""How much of each layer stays: the least sensitivity at a given cost."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from personalization.errors import UserError
from personalization.transformer.layers import Layer, LayerKind

# Channels leave in chunks of this share of their layer; the last few are trimmed one by one.
_CHUNKS = 48
_LARGEST_EXPONENT = 12.0
# A cost that is over its target by no more than this factor is not over it.
_ROUNDING = 1.0 + 1e-12


@dataclass(frozen=True)
class Curves:
    """Sensitivity of each layer as a power law of its level, scale * level ** exponent, both [layers], convex."""

    scale: NDArray[np.float64]
    exponent: NDArray[np.float64]

    def at(self, layer: int, level: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the entropy increase (nats) that `layer` is expected to cause at each `level` in [0, 1]."""
        return np.asarray(self.scale[layer] * level ** self.exponent[layer], dtype=np.float64)


def fit_curves(sensitivity: NDArray[np.float64], levels: ArrayLike, *, default_exponent: float = 3.0) -> Curves:
    """Fit a power law to the sensitivities [atoms] = [layers * levels] of each layer, in logarithms.

    levels: [levels], or [layers, levels] where layers were lowered by different shares. Where a layer has one level,
    or the same one several times, the exponent is `default_exponent`. A layer never seen to matter gets a small share
    of the mean instead of zero: a recovered zero means "not seen", not "free".
    """
    shares = np.asarray(levels, dtype=np.float64)
    table = sensitivity.reshape(-1, shares.shape[-1])
    floor = 1e-3 * max(float(table.mean()), 1e-9)
    values = np.log(np.maximum(table, floor))
    x = np.log(np.broadcast_to(shares, table.shape))
    centred = x - x.mean(1, keepdims=True)
    spread, slope = (centred**2).sum(1), np.full(len(table), default_exponent)
    told = spread > 1e-12
    slope[told] = np.clip((values * centred).sum(1)[told] / spread[told], 1.0, _LARGEST_EXPONENT)
    return Curves(np.exp(values.mean(1) - slope * x.mean(1)), slope)


@dataclass(frozen=True)
class Costs:
    """What a unit of each layer costs, [layers], and what can't be cut, in the budget's own measure.

    cut: what a model costs more, whatever its units, once any of them are gone.
    """

    per_unit: NDArray[np.float64]
    fixed: float
    cut: float = 0.0

    def total(self, counts: NDArray[np.int64]) -> float:
        """Return the cost of a model that keeps `counts` [layers] units, without `cut`."""
        return self.fixed + float(self.per_unit @ counts)


def weight_costs(layers: Sequence[Layer]) -> Costs:
    """Return the cost of units in weights of the blocks; what lies outside the layers costs nothing."""
    return Costs(np.array([layer.weights_per_unit for layer in layers], dtype=np.float64), 0.0)


def check_reachable(layers: Sequence[Layer], budget: float, limit: float) -> None:
    """Raise UserError where layers that lose at most a share `limit` each keep more than `budget` of all weights."""
    costs = weight_costs(layers)
    least, dense = costs.total(_least_counts(layers, limit)), costs.total(_least_counts(layers, 0.0))
    if least > budget * dense * _ROUNDING:
        raise UserError(_unreachable(budget, least / dense))


def allocate(
    layers: Sequence[Layer],
    curves: Curves,
    costs: Costs,
    budget: float,
    *,
    limits: NDArray[np.float64],
    available: NDArray[np.int64] | None = None,
    equal: bool = False,
) -> NDArray[np.int64]:
    """Return how many units each layer keeps, [layers], at a cost of at most `budget` times that of the dense model.

    limits [layers]: largest level of each layer. available [layers]: units that may be kept where the fleet has
    dropped some. Units leave in the order of what they add to the sum of the curves per cost; because the curves are
    convex this is the optimum of the relaxed problem (Lagrangian), rounded to whole units. equal: whether layers of a
    kind keep as many units as each other, rounded to whole chunks: a 48th of a layer of channels, one head.
    Raises UserError if the limits do not allow the budget.
    """
    dense = np.array([layer.units for layer in layers], dtype=np.int64)
    counts = dense.copy() if available is None else available.copy()
    least = _least_counts(layers, limits)
    groups = _of_a_kind(layers) if equal else [[layer.index] for layer in layers]
    for group in groups:
        counts[group], least[group] = counts[group].min(), least[group].max()
    least = np.minimum(least, counts)
    target = budget * costs.total(dense)
    # Only a model that stays whole is spared what a cut adds.
    if costs.total(dense) > target or (counts < dense).any():
        target -= costs.cut
    if costs.total(least) > target * _ROUNDING:
        raise UserError(_unreachable(budget, (costs.total(least) + costs.cut) / costs.total(dense)))
    for _, number, size in sorted(_chunks(layers, groups, curves, costs, counts, least)):
        if costs.total(counts) <= target:
            break
        group, excess = groups[number], costs.total(counts) - target
        # The last chunk is taken in single units, so that no more leaves than the budget asks for; but layers that are
        # to be equal are to have a round number of them, too.
        counts[group] -= size if equal else min(size, int(np.ceil(excess / costs.per_unit[group].sum() - 1e-9)))
    return counts


def _least_counts(layers: Sequence[Layer], limits: NDArray[np.float64] | float) -> NDArray[np.int64]:
    units = np.array([layer.units for layer in layers])
    return np.ceil(units * (1.0 - limits) - 1e-9).astype(np.int64)


def _unreachable(budget: float, share: float) -> str:
    return f"budget {budget}: the limits allow at least {share:.3f}; raise the budget or the layer limit"


def _of_a_kind(layers: Sequence[Layer]) -> list[list[int]]:
    groups = [[layer.index for layer in layers if layer.kind is kind] for kind in LayerKind]
    return [group for group in groups if group]


def _chunks(
    layers: Sequence[Layer],
    groups: Sequence[Sequence[int]],
    curves: Curves,
    costs: Costs,
    counts: NDArray[np.int64],
    least: NDArray[np.int64],
) -> list[tuple[float, int, int]]:
    """Return chunks that can leave: what they add per cost, which group of layers they leave, and units of each."""
    chunks = []
    for number, group in enumerate(groups):
        layer = layers[group[0]]
        size = 1 if layer.kind is LayerKind.ATTENTION else max(1, layer.units // _CHUNKS)
        edges = np.append(np.arange(counts[layer.index], least[layer.index], -size), least[layer.index])
        rises = np.diff([curves.at(index, 1.0 - edges / layers[index].units) for index in group]).sum(0)
        for rise, removed in zip(rises, -np.diff(edges), strict=True):
            chunks.append((float(rise / (removed * costs.per_unit[group].sum())), number, int(removed)))
    return chunks
