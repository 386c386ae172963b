"""One mask for a whole fleet: clients vote with the share that they keep of each group of units."""

import numpy as np
from numpy.typing import NDArray

from personalization.allocation.allocate import Costs
from personalization.transformer.groups import UnitGroups


def dropped_by_vote(kept: NDArray[np.float64], groups: UnitGroups, costs: Costs, budget: float) -> NDArray[np.bool_]:
    """Return which groups everybody drops, [groups] over all layers in order.

    kept: [clients, groups], the share that each client keeps of each group. Each layer keeps as large a share of its
    groups as clients keep of it on average, those with the most votes; what is above or below a share in all layers
    alike goes or comes first until `budget` times the cost of the dense model is filled. A group that does not fit is
    passed over.
    """
    per_group = _group_costs(groups, costs)
    dense = costs.fixed + float(per_group.sum())
    target = budget * dense * (1.0 + 1e-12) - (costs.cut if budget < 1.0 else 0.0)
    dropped = np.ones(len(per_group), dtype=np.bool_)
    spent = costs.fixed
    for group in np.argsort(-_claims(kept.mean(0), groups), kind="stable"):
        if spent + per_group[group] <= target:
            dropped[group] = False
            spent += float(per_group[group])
    return dropped


def _group_costs(groups: UnitGroups, costs: Costs) -> NDArray[np.float64]:
    """Return what each group costs, [groups] over all layers in order, in the measure of `costs`."""
    per_unit = zip(groups, costs.per_unit, strict=True)
    return np.array([len(group) * cost for layer_groups, cost in per_unit for group in layer_groups], dtype=np.float64)


def _claims(votes: NDArray[np.float64], groups: UnitGroups) -> NDArray[np.float64]:
    """Return for each group how far it lies inside the share that its layer keeps, [groups]; below 0 outside of it."""
    claims = []
    for own in np.split(votes, np.cumsum([len(layer_groups) for layer_groups in groups])[:-1]):
        place = np.argsort(np.argsort(-own, kind="stable"))
        claims.append(own.mean() - (place + 0.5) / len(own))
    return np.concatenate(claims)
