"""The fleet's prior on the scale of one device."""

import numpy as np
from numpy.typing import NDArray

from personalization.sensing.prior import Prior

Array = NDArray[np.float64]

_FLOOR = 0.001
_WEIGHT_RANGE = (0.05, 20.0)
_PSEUDO_MEASUREMENTS = 6.0
_SCALE_RANGE = (0.01, 100.0)


def is_usable(prior: Prior | None) -> bool:
    """Say whether the fleet knows anything: at least one atom with precision and sensitivity above 0."""
    return prior is not None and bool(np.any((prior.precision > 0.0) & (prior.sensitivity > 0.0)))


def floored_sensitivity(prior: Prior) -> Array:
    """Return the sensitivities [atoms] (nats, > 0) of a usable prior, from which a relative deviation can start.

    An atom that the fleet knows nothing about (precision 0) gets the mean of the known ones; a known one gets at least
    0.1 % of that mean, because what is a multiple of 0 can never move.
    """
    known = prior.precision > 0.0
    mean = float(prior.sensitivity[known].mean())
    return np.where(known, np.maximum(prior.sensitivity, _FLOOR * mean), mean)


def pull_weights(prior: Prior) -> Array:
    """Return how strongly each atom [atoms] of a usable prior is pulled to it, dimensionless.

    Its precision relative to the mean precision of the known atoms, within [0.05, 20]. Only ratios count: how strong
    the pull is in all is for cross-validation to say.
    """
    mean = float(prior.precision[prior.precision > 0.0].mean())
    return np.clip(prior.precision / mean, *_WEIGHT_RANGE)


def common_scale(design: Array, measurements: Array, sensitivity: Array) -> float:
    """Return the factor c > 0 by which this device's sensitivities exceed the fleet's `sensitivity` [atoms].

    design [probes, atoms] and measurements [probes] (nats). The weighted median of measured over expected, within
    [0.01, 100], where probes weigh as the root of what is expected of them, halfway between constant and proportional
    noise. Being a median, it ignores the atoms in which this device really differs. Shrunk towards 1 as if 6 more
    probes had said 1: c = median^(m / (m + 6)). In simulations of devices on scales 5 to 30 % apart, 4 to 8 were best.
    """
    expected = design @ sensitivity
    counts = expected > 0.0
    if not counts.any():
        return 1.0
    ratios = np.clip(measurements[counts] / expected[counts], *_SCALE_RANGE)
    order = np.argsort(ratios)
    mass = np.cumsum(np.sqrt(expected[counts][order]))
    median = float(ratios[order][np.searchsorted(mass, 0.5 * mass[-1])])
    probes = int(counts.sum())
    return float(median ** (probes / (probes + _PSEUDO_MEASUREMENTS)))
