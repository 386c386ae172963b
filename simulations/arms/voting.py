"""One mask for a whole fleet: clients vote with the share that they keep of each group of units."""

import numpy as np
from numpy.typing import NDArray

from personalization.allocation.allocate import Costs
from personalization.transformer.groups import UnitGroups


def group_costs(groups: UnitGroups, costs: Costs) -> NDArray[np.float64]:
    """Return what each group costs, [groups] over all layers in order, in the measure of `costs`."""
    per_unit = zip(groups, costs.per_unit, strict=True)
    return np.array([len(group) * cost for layer_groups, cost in per_unit for group in layer_groups], dtype=np.float64)


def dropped_by_vote(
    kept: NDArray[np.float64], costs: NDArray[np.float64], *, fixed: float, budget: float, cut: float = 0.0
) -> NDArray[np.bool_]:
    """Return which groups [groups] everybody drops.

    kept: [clients, groups], the share that each client keeps of each group. costs [groups], fixed, cut: see `Costs`.
    Groups are kept whole, those with the highest mean of `kept` per cost first, as long as the next one fits into
    `budget` times the cost of the dense model; one that does not fit is passed over.
    """
    target = budget * (fixed + float(costs.sum())) * (1.0 + 1e-12) - (cut if budget < 1.0 else 0.0)
    dropped = np.ones(len(costs), dtype=np.bool_)
    spent = fixed
    for group in np.argsort(-kept.mean(0) / costs, kind="stable"):
        if spent + costs[group] <= target:
            dropped[group] = False
            spent += float(costs[group])
    return dropped
