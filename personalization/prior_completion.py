"""What a fleet that has measured some atoms expects of all of them."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from personalization.layers import Layer
from personalization.prior import Prior

Array = NDArray[np.float64]

# Standard deviations of what log sensitivities (nats) are made of, as in SmolLM2 and in vision transformers.
_EVERYTHING = 3.0
_KIND = 1.0
_DEPTH = 0.4
_LAYER = 0.4
_ATOM = 0.15
# Sensitivity rises about as the square of the share that a layer loses. Where few atoms are known, two of them must not
# persuade anybody that it rises in a straight line, or that half a layer is free.
_EXPONENT = 2.0
_EXPONENT_OF_KIND = 0.5
_EXPONENT_OF_LAYER = 0.3
# By how much what one device measures of an atom is off for the others.
_LOOK = 0.3
# Blocks over which the part that changes with depth is remembered.
_BLOCKS = 3.0
_FLOOR = 0.001
# Of atoms that nobody has measured, relative to the mean of the others: the least pull that `recover` knows.
_PRECISION = 0.05


def completed_prior(prior: Prior | None, layers: Sequence[Layer], shares: Array) -> Prior | None:
    """Return what a fleet that has not measured every atom yet expects of each, from all that it has measured.

    prior: [atoms] = [layers * levels]. shares: of its units that each layer loses at each level, [layers, levels]. A
    young fleet of a deep model has measured many layers at one level or at none, and most others once. What it can
    expect is the mean of a Gaussian process over log sensitivities (Rasmussen and Williams, Gaussian Processes for
    Machine Learning, equation 2.25) that are nearly power laws of the share: a scale and an exponent for each kind of
    layer, a scale that changes slowly with depth, a scale and an exponent for each layer, and something for each atom.
    What was measured often is left nearly as it is: the atom with the least precision counts as one look. A higher
    level of a layer is never expected to cost less than a lower one. Where everything is known, or nothing, and without
    a prior, it comes back as it was.
    """
    if prior is None:
        return None
    known = prior.precision > 0.0
    if known.all() or not prior.sensitivity[known].any():
        return prior
    floor = _FLOOR * float(prior.sensitivity[known].mean())
    logs = np.log(shares).ravel()
    usual = _EXPONENT * (logs - logs.mean())
    measured = np.log(np.maximum(prior.sensitivity[known], floor)) - usual[known]
    looks = prior.precision[known] / prior.precision[known].min()
    shared = _covariance(layers, logs - logs.mean())
    noise = np.diag(_LOOK**2 / looks)
    mean = measured.mean()
    weights = np.linalg.solve(shared[np.ix_(known, known)] + noise, measured - mean)
    expected = np.exp(mean + usual + shared[:, known] @ weights).reshape(shares.shape)
    precision = _PRECISION * float(prior.precision[known].mean())
    return Prior(np.maximum.accumulate(expected, axis=1).ravel(), np.where(known, prior.precision, precision))


def _covariance(layers: Sequence[Layer], logs: Array) -> Array:
    """Return how the log sensitivities of all atoms vary together, [atoms, atoms], at log shares `logs` [atoms]."""
    levels = len(logs) // len(layers)
    kind = np.repeat([layer.kind.value for layer in layers], levels)
    block = np.repeat([float(layer.block) for layer in layers], levels)
    index = np.repeat([layer.index for layer in layers], levels)
    same_kind = kind[:, None] == kind
    same_layer = index[:, None] == index
    near = np.exp(-np.abs(block[:, None] - block) / _BLOCKS)
    slopes = np.outer(logs, logs)
    return np.asarray(
        _EVERYTHING**2
        + same_kind * (_KIND**2 + _EXPONENT_OF_KIND**2 * slopes + _DEPTH**2 * near)
        + same_layer * (_LAYER**2 + _EXPONENT_OF_LAYER**2 * slopes)
        + _ATOM**2 * np.eye(len(kind))
    )
