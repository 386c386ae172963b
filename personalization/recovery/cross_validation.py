"""Choose a solver's strength by cross-validation over probes."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from personalization.recovery.base import Array, Solver

FEWEST_PROBES = 4
_LEAVE_ONE_OUT_UP_TO = 16
_FOLDS = 8


def held_out_folds(probes: int, seed: int) -> list[NDArray[np.int64]]:
    """Return the probes that are held out together: each alone up to 16 probes, above that 8 random parts of them."""
    if probes <= _LEAVE_ONE_OUT_UP_TO:
        return list(np.arange(probes)[:, None])
    return np.array_split(np.random.default_rng(seed).permutation(probes), _FOLDS)


def held_out_errors(
    solver: Solver, design: Array, measurements: Array, *, strengths: Sequence[float], seed: int
) -> Array:
    """Return predicted minus measured (nats) [strengths, probes], each probe predicted from the other folds alone.

    design [probes, atoms], measurements [probes], at least 2 probes; `strengths` fall. Predictions are made
    with what recovery would return: unseen atoms are completed, and a device's scale is fitted again in each fold.
    """
    errors = np.empty((len(strengths), len(measurements)))
    for fold in held_out_folds(len(measurements), seed):
        kept = np.delete(np.arange(len(measurements)), fold)
        for i, x in enumerate(solver.path(design[kept], measurements[kept], strengths)):
            completed = solver.complete(x, design[kept], measurements[kept])
            errors[i, fold] = design[fold] @ completed - measurements[fold]
    return errors


def choose_strength(strengths: Sequence[float], errors: Array, *, default: float) -> int:
    """Return the index of the strength to use, given held-out `errors` [strengths, probes].

    Among the strengths whose squared error is within one standard error (of the paired difference) of the lowest, the
    one nearest to `default`. Few probes say little about the strength, and single-layer probes, where no other probe
    has the held-out atom, say nothing: all strengths tie, and the default stands. In the simulations of `Deviation`
    the strength of lowest error, which overfits, gave 5 % more error than this one.
    """
    squared = errors**2
    excess = squared - squared[np.argmin(squared.sum(axis=1))]
    probes = errors.shape[1]
    standard_error = np.sqrt(probes) * excess.std(axis=1, ddof=1)
    rounding = 1e-12 * squared.sum(axis=1)
    as_good = np.flatnonzero(excess.sum(axis=1) <= standard_error + rounding)
    distance = np.abs(np.log(np.asarray(strengths)[as_good] / default))
    return int(as_good[np.argmin(distance)])


def explained_variance(errors: Array, measurements: Array) -> float | None:
    """Return R2 = 1 - sum errors^2 / sum (y - mean y)^2 of `errors` [probes], None where `measurements` do not vary."""
    spread = measurements - measurements.mean()
    if np.max(np.abs(spread)) <= 1e-12 * np.max(np.abs(measurements)):
        return None
    return float(1.0 - np.sum(errors**2) / np.sum(spread**2))
