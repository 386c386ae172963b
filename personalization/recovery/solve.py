"""Recover the sensitivities of a device from its compressed-sensing samples."""

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from personalization.errors import UserError
from personalization.recovery.base import Array, RecoveryResult, Solver
from personalization.recovery.cross_validation import (
    FEWEST_PROBES,
    choose_strength,
    explained_variance,
    held_out_errors,
)
from personalization.recovery.deviation import Deviation, Penalty
from personalization.recovery.lasso import Lasso, lasso_weights
from personalization.recovery.matching_pursuit import MatchingPursuit
from personalization.recovery.precision import sample_precision
from personalization.recovery.scaling import floored_sensitivity, is_usable
from personalization.sensing.prior import Prior

SolverName = Literal["deviation", "lasso", "omp"]


def recover(
    design: ArrayLike,
    measurements: ArrayLike,
    *,
    solver: SolverName = "deviation",
    prior: Prior | None = None,
    levels: int = 1,
    seed: int = 0,
    penalty: Penalty = "l2",
    strength: float | None = None,
) -> RecoveryResult:
    """Return sensitivities x >= 0 with `design` x = `measurements` as nearly as the solver's penalty allows.

    design: [probes, atoms], what each probe switches on (mostly 0 and 1). measurements: [probes], nats.
    solver: `deviation` from the prior (`lasso` where there is none, or it knows nothing), `lasso` or `omp`.
    prior: of the fleet, [atoms]. Lasso takes weights from it; all solvers take from it the atoms that no probe
        switched on, and without it those get the mean of the others.
    levels: how many atoms, one after the other, belong to one layer; `deviation` lets them deviate together.
    seed: of the folds. penalty: `l1` or `l2`, on the deviation. strength: relative to its maximum, >= 0; None chooses
        it by cross-validation, and takes the solver's default with fewer than 4 probes.

    Without any probe the result is the prior itself with precision 0. Raises UserError where there is nothing to
    recover from, a measurement is not finite, or an option is not one of those above; ValueError for shapes that do not
    fit.
    """
    matrix, measured = _checked(design, measurements, prior, strength, levels)
    method = _solver(solver, matrix.shape[1], prior, penalty, levels)
    if len(measured) == 0:
        if method.prior is None:
            raise UserError(
                "no probes were measured and there is no fleet prior: nothing to recover from; measure some"
            )
        fixed = method.default_strength if strength is None else strength
        return RecoveryResult(method.prior.copy(), np.zeros(matrix.shape[1]), None, fixed, method.name)
    r2, chosen = None, method.default_strength if strength is None else strength
    if len(measured) >= FEWEST_PROBES:
        candidates = method.strengths if strength is None else (strength,)
        errors = held_out_errors(method, matrix, measured, strengths=candidates, seed=seed)
        best = choose_strength(candidates, errors, default=method.default_strength)
        r2, chosen = explained_variance(errors[best], measured), candidates[best]
    stronger = [s for s in method.strengths if s > chosen]
    x = method.path(matrix, measured, [*stronger, chosen])[-1]
    precision = sample_precision(matrix, measured)
    return RecoveryResult(method.complete(x, matrix, measured), precision, r2, chosen, method.name)


def _solver(name: str, atoms: int, prior: Prior | None, penalty: Penalty, levels: int) -> Solver:
    known = prior if is_usable(prior) else None
    base = None if known is None else floored_sensitivity(known)
    if name == "deviation" and known is not None:
        return Deviation(known, penalty=penalty, levels=levels)
    if name in ("deviation", "lasso"):
        return Lasso(np.ones(atoms) if base is None else lasso_weights(base), base)
    if name == "omp":
        return MatchingPursuit(base)
    raise UserError(f"solver {name!r}: expected deviation, lasso or omp")


def _checked(
    design: ArrayLike, measurements: ArrayLike, prior: Prior | None, strength: float | None, levels: int
) -> tuple[Array, Array]:
    matrix, measured = np.asarray(design, dtype=np.float64), np.asarray(measurements, dtype=np.float64)
    if matrix.ndim != 2 or measured.shape != matrix.shape[:1] or matrix.shape[1] == 0:
        raise ValueError(f"design {matrix.shape} and measurements {measured.shape}; expected [probes, atoms], [probes]")
    if levels < 1 or matrix.shape[1] % levels:
        raise ValueError(f"{matrix.shape[1]} atoms of {levels} levels a layer")
    if prior is not None and prior.sensitivity.shape != matrix.shape[1:]:
        raise ValueError(f"prior of {prior.sensitivity.size} atoms, design of {matrix.shape[1]}")
    if not np.isfinite(matrix).all():
        raise ValueError("the design must be finite")
    if not np.isfinite(measured).all():
        raise UserError(
            f"measurement {int(np.argmin(np.isfinite(measured)))} is not finite: expected an entropy or loss increase "
            "in nats; check that the model's outputs are finite on the private samples"
        )
    if strength is not None and not (np.isfinite(strength) and strength >= 0.0):
        raise UserError(f"strength {strength}: expected 0 or more, relative to the maximum")
    return matrix, measured
