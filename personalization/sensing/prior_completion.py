"""What a device expects of all atoms, from its own local errors and from those that its fleet has measured."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from personalization.sensing.prior import LOOK, Prior
from personalization.sensing.probes import ProbeSamples
from personalization.transformer.layers import Layer

Array = NDArray[np.float64]

# Standard deviations of log gains, by how many nats a layer's error is felt in what the model predicts, as in SmolLM2
# and in vision transformers.
_EVERYTHING = 3.0
_KIND = 1.0
_LEVEL_OF_KIND = 0.15
_DEPTH = 0.5
_LAYER = 0.4
_ATOM = 0.15
# By how much what one device measures of an atom is off for the others.
_DEVIATION = 0.3
# Blocks over which the part that changes with depth is remembered.
_BLOCKS = 3.0
_FLOOR = 0.001
# Of atoms that nobody has measured, relative to the mean of the others: the least pull that `recover` knows.
_PRECISION = 0.05


def completed_prior(prior: Prior, layers: Sequence[Layer], errors: Array) -> Prior:
    """Return what a fleet lets a device expect of each atom, those included that it has not measured yet.

    prior: [atoms] = [layers * levels]. errors: the device's own local errors, [layers, levels]. A young fleet of a deep
    model has measured many layers at one level or at none, and most others once. What a device can expect is its own
    error times a gain: the mean of a Gaussian process over log gains (Rasmussen and Williams, Gaussian Processes for
    Machine Learning, equation 2.25) with a mean for each kind of layer, and a little for each level of it, a part that
    changes slowly with depth, one for each layer at all its levels and a little for each atom. What was measured often
    is left nearly as it is. A higher level of a layer is never expected to cost less than a lower one. Where all is
    certain, or only zeros are known, it comes back as it was.
    """
    known = prior.precision > 0.0
    if prior.certain or not prior.sensitivity[known].any():
        return prior
    floor = _FLOOR * float(prior.sensitivity[known].mean())
    own = _logarithms(errors)
    gains = np.log(np.maximum(prior.sensitivity[known], floor)) - own[known]
    # Old rounds fade from the fleet's precision, not from the truth: what it knows least counts as one look at least.
    looks = prior.precision[known] / min(LOOK, float(prior.precision[known].min()))
    shared = _covariance(layers, errors.shape[1])
    noise = np.diag(_DEVIATION**2 / looks)
    mean = gains.mean()
    weights = np.linalg.solve(shared[np.ix_(known, known)] + noise, gains - mean)
    expected = np.exp(mean + own + shared[:, known] @ weights).reshape(errors.shape)
    precision = _PRECISION * float(prior.precision[known].mean())
    return Prior(np.maximum.accumulate(expected, axis=1).ravel(), np.where(known, prior.precision, precision))


def prior_of_errors(errors: Array, samples: ProbeSamples) -> Prior | None:
    """Return what a device without a fleet expects: its local errors [layers, levels], on the scale of its `samples`.

    None where it has measured nothing above zero.
    """
    own = np.exp(_logarithms(errors))
    predicted, measured = float((samples.design @ own).sum()), float(samples.measurements.sum())
    if predicted <= 0.0 or measured <= 0.0:
        return None
    rising = np.maximum.accumulate(own.reshape(errors.shape), axis=1).ravel()
    return Prior(rising * measured / predicted, np.full(own.size, _PRECISION))


def _logarithms(errors: Array) -> Array:
    """Return the logarithms of local errors, [atoms], those of next to nothing raised to a floor."""
    return np.asarray(np.log(np.maximum(errors, max(_FLOOR * float(errors.mean()), 1e-30))).ravel())


def _covariance(layers: Sequence[Layer], levels: int) -> Array:
    """Return how the log gains of all atoms vary together, [atoms, atoms]."""
    kind = np.repeat([layer.kind.value for layer in layers], levels)
    block = np.repeat([float(layer.block) for layer in layers], levels)
    index = np.repeat([layer.index for layer in layers], levels)
    level = np.tile(np.arange(levels), len(layers))
    same_kind = kind[:, None] == kind
    near = np.exp(-np.abs(block[:, None] - block) / _BLOCKS)
    return np.asarray(
        _EVERYTHING**2
        + same_kind * (_KIND**2 + _DEPTH**2 * near + _LEVEL_OF_KIND**2 * (level[:, None] == level))
        + _LAYER**2 * (index[:, None] == index)
        + _ATOM**2 * np.eye(len(kind))
    )
