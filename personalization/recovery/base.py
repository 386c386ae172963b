"""What every recovery solver offers, and what recovery returns."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from personalization.recovery.scaling import common_scale

Array = NDArray[np.float64]


@dataclass(frozen=True)
class RecoveryResult:
    """Sensitivities of one device, and how far to trust them.

    sensitivity: [atoms], nats, >= 0.
    precision: [atoms] in [0, 1), how well the device's own samples determine each atom (see `precision.py`).
    r2: share of the variance of held-out probes that is predicted (cross-validated, can be negative); None with fewer
        than 4 probes or measurements that are all the same.
    strength: the penalty's strength relative to its maximum.
    solver: which solver ran; `lasso` where `deviation` was asked for without a usable prior.
    """

    sensitivity: Array
    precision: Array
    r2: float | None
    strength: float
    solver: str


class Solver(ABC):
    """A way to recover sensitivities x >= 0 [atoms] from measurements y = A x + noise.

    name: as in the settings. strengths: the relative strengths that cross-validation tries, falling.
    default_strength: one of them, used where cross-validation cannot tell.
    """

    name: str
    strengths: tuple[float, ...]
    default_strength: float

    def __init__(self, prior: Array | None = None) -> None:
        """Keep the fleet's sensitivities [atoms] (nats, > 0), if there are any."""
        self.prior = prior

    @abstractmethod
    def path(self, design: Array, measurements: Array, strengths: Sequence[float]) -> Array:
        """Return the solutions [strengths, atoms] (nats) for falling relative `strengths`, each begun at the last.

        design [probes, atoms], measurements [probes] in nats, at least one probe.
        """

    def complete(self, sensitivity: Array, design: Array, measurements: Array) -> Array:
        """Return `sensitivity` [atoms] (nats) with what the samples cannot tell filled in.

        Atoms that were on in the same probes share what was found for them, equally or as the prior has it; a sparse
        solver gives all to one of them. An atom that no probe switched on gets the prior on this device's scale, or the
        mean of the seen atoms where there is no prior.
        """
        shared = share_among_twins(sensitivity, design, np.ones_like(sensitivity) if self.prior is None else self.prior)
        seen = np.any(design != 0.0, axis=0)
        if self.prior is None:
            return shrink_unseen(shared, seen)
        return np.where(seen, shared, self.prior * common_scale(design, measurements, self.prior))


def share_among_twins(sensitivity: Array, design: Array, shares: Array) -> Array:
    """Return `sensitivity` [atoms] with the sum over atoms of equal columns of `design` split as `shares` [atoms] > 0.

    design [probes, atoms]. What it predicts for these probes stays the same.
    """
    _, twins = np.unique(design, axis=1, return_inverse=True)
    return np.asarray(shares * (np.bincount(twins, sensitivity) / np.bincount(twins, shares))[twins])


def shrink_unseen(sensitivity: Array, seen: NDArray[np.bool_]) -> Array:
    """Return `sensitivity` [atoms] (nats) with the mean of the `seen` atoms [atoms] in place of the unseen ones.

    No penalty can say anything about an atom that was never switched on: its zero means "not seen to matter", and an
    allocation that took it for free would cut the layer to the bone. Its precision stays 0.
    """
    if not seen.any():
        return sensitivity
    return np.where(seen, sensitivity, sensitivity[seen].mean())
