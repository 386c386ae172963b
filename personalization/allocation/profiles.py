"""Profiles of levels that nobody measured, and how allocation and recovery take them for what was measured."""

import difflib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from personalization.allocation.allocate import Curves
from personalization.errors import UserError
from personalization.sensing.prior import CERTAINTY, Prior
from personalization.transformer.layers import Layer

PROFILES = ("uniform", "depth-linear")
# How much the level rises from the first block to the last, relative to its mean; linearly, as in ATP (2502.14770).
DEPTH_SLOPE = 0.5
_MEAN_LEVEL = 0.6
_EXPONENT = 3.0


def profile_levels(profile: str, layers: Sequence[Layer]) -> NDArray[np.float64]:
    """Return the levels [layers] of a profile; only their ratios matter, the budget sets their size.

    `uniform`: the same everywhere. `depth-linear`: rising by equal steps from block to block (ATP, 2502.14770, where
    the slope is searched for; here it is `DEPTH_SLOPE`). Raises UserError that names the nearest profile there is.
    """
    if profile == "uniform":
        return np.full(len(layers), _MEAN_LEVEL)
    if profile == "depth-linear":
        depth = np.array([layer.block for layer in layers]) / max(1, *(layer.block for layer in layers))
        return np.asarray(_MEAN_LEVEL * (1.0 + DEPTH_SLOPE * (depth - 0.5)), dtype=np.float64)
    nearest = difflib.get_close_matches(profile, PROFILES, n=1, cutoff=0.0)[0]
    raise UserError(f"profile {profile!r}: unknown; did you mean {nearest}? There are: {', '.join(PROFILES)}")


def profile_curves(costs: NDArray[np.float64], levels: NDArray[np.float64]) -> Curves:
    """Return curves for which the cheapest allocation has `levels` [layers], up to a factor that the budget sets.

    costs [layers]: of each whole layer, in the budget's own measure. A curve of exponent e and scale c_l / r_l^(e-1)
    has marginal sensitivity per cost e (t r_l)^(e-1) / r_l^(e-1) at level t r_l: the same in every layer.
    """
    scale = costs / np.clip(levels, 0.02, 1.0) ** (_EXPONENT - 1.0)
    return Curves(scale / scale.sum(), np.full(len(levels), _EXPONENT))


def profile_prior(curves: Curves, levels: NDArray[np.float64]) -> Prior:
    """Return `curves` as a prior over the probe levels, certain everywhere: a device that believes it measures nothing.

    levels: [layers, levels], as each layer can be lowered (`probe_levels`). Sensitivities [layers * levels] add
    up to one nat over the layers at level 1; only ratios matter for allocation.
    """
    table = np.array([curves.at(layer, own) for layer, own in enumerate(levels)])
    return Prior(table.reshape(-1), np.full(table.size, CERTAINTY))
