"""What the fleet has learned about each layer: what everybody dropped, and what it calls personal."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from personalization.settings import PersonalizationSettings
from personalization.wire.statistics import StatisticsLayout
from server.planning import FleetKnowledge

# As in personalization/transformer/groups.py, which needs torch: a head is a group of its own, an MLP has so many.
MLP_GROUPS = 16
KINDS = ("attention", "mlp")


def layer_records(knowledge: Mapping[str, Any], fewest: int) -> list[dict[str, Any]]:
    """Return one record a layer, in the order in which they run, from the `knowledge` of a journal.

    groups, dropped_groups: of the layer, a group is a head or a sixteenth of an MLP. dropped_share of them.
    sensitivity_share: of the fleet's total; None unless `fewest` replies measured the layer. personal: whether it is
    one of the fewest layers that cover what clients call personal. Raises ValueError on what is no such knowledge.
    """
    try:
        known = FleetKnowledge.from_json(dict(knowledge))
        layout = _layout(known)
    except (KeyError, TypeError, IndexError, OverflowError) as error:
        raise ValueError("not a fleet's knowledge") from error
    groups = np.tile([len(known.kept) // (layout.layers // 2) - MLP_GROUPS, MLP_GROUPS], layout.layers // 2)
    dropped = np.add.reduceat(known.dropped.astype(np.int64), np.cumsum(groups) - groups)
    shares, personal = _sensitivities(known, layout, fewest)
    return [
        {
            "layer": f"{number // 2 + 1} {KINDS[number % 2]}",
            "block": number // 2 + 1,
            "kind": KINDS[number % 2],
            "groups": int(groups[number]),
            "dropped_groups": int(dropped[number]),
            "dropped_share": float(dropped[number] / groups[number]),
            "sensitivity_share": None if np.isnan(shares[number]) else float(shares[number]),
            "personal": None if np.isnan(shares[number]) else bool(personal[number]),
        }
        for number in range(layout.layers)
    ]


def _layout(known: FleetKnowledge) -> StatisticsLayout:
    """Return the layout that fits: a block is an attention and an MLP, and all blocks are alike. Raises ValueError."""
    levels = len(PersonalizationSettings().levels)
    atoms, groups = len(known.precision), len(known.kept)
    blocks, rest = divmod(atoms, 2 * levels)
    if (
        rest
        or not blocks
        or groups % blocks
        or groups // blocks <= MLP_GROUPS
        or known.weighted.shape != known.precision.shape
    ):
        raise ValueError("knowledge that fits no layers")
    return StatisticsLayout(layers=2 * blocks, levels=levels, groups=groups)


def _sensitivities(
    known: FleetKnowledge, layout: StatisticsLayout, fewest: int
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return [layers] shares, NaN where too few replies measured the layer, and [layers] whether it is personal."""
    prior = known.prior(layout)
    if prior is None:
        return np.full(layout.layers, np.nan), np.zeros(layout.layers, dtype=np.bool_)
    # A reply adds at most 1 to the precision of a level: where the sum is 3, at least three replies stand behind it.
    measured = prior.precision.reshape(layout.layers, layout.levels).max(1) >= fewest
    nats = np.where(measured, prior.sensitivity.reshape(layout.layers, layout.levels).sum(1), 0.0)
    shares = nats / nats.sum() if nats.sum() > 0.0 else nats
    order = np.argsort(-shares, kind="stable")
    before = np.cumsum(shares[order]) - shares[order]
    personal = np.zeros(layout.layers, dtype=np.bool_)
    covers = before < PersonalizationSettings().personalized_share - 1e-12
    personal[order] = covers & (shares[order] > 0.0)
    return np.where(measured, shares, np.nan), personal
