"""The fields of a statistics vector, and what each says."""

import numpy as np
from numpy.typing import NDArray

from personalization.wire.statistics import SCALARS, WIRE_TYPE, StatisticsLayout
from simulations.audit.leaves import Piece
from strategies.private_protocol import RELEASED_TYPE

_MEANINGS = {
    "precision": "how well the device's own probes determine each layer at each level",
    "weighted_sensitivity": "that precision times how much the device's predictions need the layer",
    "level": "share of each layer's units that the device cut",
    "personalized": "whether the layer is one that the device needs most",
    "group_kept": "share of each group of units that the device kept",
    "agreement": "share of held-out private samples on which personal and dense model agree",
    "entropy_increase": "mean rise in entropy on held-out private samples",
    "size_ratio": "weights of the personal model to those of the dense one",
    "latency_ratio": "the same ratio, in the place of a measured one",
    "fit_r2": "how well effects of probes add up",
}


def vector_pieces(vector: NDArray[np.float64], layout: StatisticsLayout) -> list[Piece]:
    """Return the fields of a vector [layout.size] as it travels, in their order; the scalars one by one."""
    pieces = []
    for name in layout.widths:
        values = vector[layout.field(name)]
        if name == "scalars":
            pieces += [_piece(scalar, values[number : number + 1]) for number, scalar in enumerate(SCALARS)]
        else:
            pieces.append(_piece(name, values))
    return pieces


def released_pieces(vector: NDArray[np.float64]) -> list[Piece]:
    """Return the one field of what a plan with noise is answered with in the open: steps on a grid [atoms]."""
    meaning = "how much more the device's predictions need each layer at each level than the fleet's, clipped"
    value = f"{len(vector)} numbers, mean {vector.mean():.4g} steps"
    return [Piece("deviations", len(vector) * RELEASED_TYPE.itemsize, meaning, value)]


def _piece(name: str, values: NDArray[np.float64]) -> Piece:
    value = f"{values[0]:.4g}" if len(values) == 1 else f"{len(values)} numbers, mean {values.mean():.4g}"
    return Piece(name, len(values) * WIRE_TYPE.itemsize, _MEANINGS.get(name), value)
