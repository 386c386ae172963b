"""What a fleet that has measured some atoms expects of the others."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from personalization.layers import Layer
from personalization.prior import Prior

Array = NDArray[np.float64]

# Standard deviations of what log sensitivities (nats) are made of, as in SmolLM2 and in vision transformers.
_EVERYTHING = 3.0
_KIND = 1.0
_LEVEL_OF_KIND = 1.0
_DEPTH = 0.4
_LAYER = 0.4
_ATOM = 0.2
# Blocks over which the part that changes with depth is remembered.
_BLOCKS = 3.0
_FLOOR = 0.001
# Of what is filled in, relative to the mean precision of the known atoms: the least pull that `recover` knows.
_PRECISION = 0.05


def completed_prior(prior: Prior | None, layers: Sequence[Layer], levels: int) -> Prior | None:
    """Return `prior` with what it says nothing about filled in from its known atoms, those as they are.

    prior: [atoms] = [layers * levels]. A young fleet of a deep model has measured many layers at one level or at none.
    What it can expect there is the mean of a Gaussian process over log sensitivities (Rasmussen and Williams, Gaussian
    Processes for Machine Learning, equation 2.25): a mean for each kind of layer and level, a part that changes slowly
    with depth, one for each layer at all its levels, one for each atom. Never less than a lower known level of a
    layer. Where nothing or everything is known, and without a prior, it comes back as it was.
    """
    if prior is None:
        return None
    known = prior.precision > 0.0
    if known.all() or not prior.sensitivity[known].any():
        return prior
    floor = _FLOOR * float(prior.sensitivity[known].mean())
    measured = np.log(np.maximum(prior.sensitivity[known], floor))
    shared = _covariance(layers, levels)
    own = shared[np.ix_(known, known)] + _ATOM**2 * np.eye(int(known.sum()))
    mean = measured.mean()
    expected = np.exp(mean + shared[:, known] @ np.linalg.solve(own, measured - mean))
    filled = np.where(known, prior.sensitivity, expected)
    rising = np.maximum.accumulate(filled.reshape(-1, levels), axis=1).ravel()
    precision = _PRECISION * float(prior.precision[known].mean())
    return Prior(np.where(known, prior.sensitivity, rising), np.where(known, prior.precision, precision))


def _covariance(layers: Sequence[Layer], levels: int) -> Array:
    """Return how the log sensitivities of all atoms vary together, [atoms, atoms], without what each has alone."""
    kind = np.repeat([layer.kind.value for layer in layers], levels)
    block = np.repeat([float(layer.block) for layer in layers], levels)
    index = np.repeat([layer.index for layer in layers], levels)
    level = np.tile(np.arange(levels), len(layers))
    same_kind = kind[:, None] == kind
    near = np.exp(-np.abs(block[:, None] - block) / _BLOCKS)
    return np.asarray(
        _EVERYTHING**2
        + _KIND**2 * same_kind
        + _LEVEL_OF_KIND**2 * (same_kind & (level[:, None] == level))
        + _DEPTH**2 * same_kind * near
        + _LAYER**2 * (index[:, None] == index)
    )
