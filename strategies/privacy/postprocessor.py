"""What stands between a client's vector and the sum that is learned from: two hooks, one at either end.

Vectors are integers on a grid on which the clipping norm is `GRID_STEPS`, so that sums, sensitivities and noise are
exact. Clients apply the hooks of a chain in order, the server in reverse.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from personalization.wire.privacy_terms import GRID_STEPS, PrivacyTerms
from strategies.privacy.discrete_gaussian import Integers, sample_discrete_gaussian
from strategies.secure_aggregation.entropy import Entropy

_LARGEST_STEPS = float(1 << 45)


class Postprocessor:
    """As a rule, a hook changes nothing."""

    def on_client(self, vector: Integers, entropy: Entropy) -> Integers:
        """Return what a client's vector [entries] becomes before it leaves, or is masked."""
        del entropy
        return vector

    def on_server(self, total: Integers, entropy: Entropy) -> Integers:
        """Return what the sum [entries] becomes before anything is learned from it."""
        del entropy
        return total


@dataclass(frozen=True)
class Clipping(Postprocessor):
    """No client's vector is longer than `norm` (L2, steps of the grid): nobody moves the sum by more."""

    norm: int = GRID_STEPS

    def on_client(self, vector: Integers, entropy: Entropy) -> Integers:
        """Return the vector shortened to the norm, rounded towards 0, which makes nothing longer."""
        length = float(np.linalg.norm(vector.astype(np.float64)))
        shortened = vector if length <= self.norm else np.trunc(vector * (self.norm / length)).astype(np.int64)
        # Lengths are compared as integers: a length that was rounded might be a little above the norm.
        while sum(int(entry) ** 2 for entry in shortened) > self.norm**2:
            shortened = shortened - np.sign(shortened)
        return shortened


@dataclass(frozen=True)
class CentralNoise(Postprocessor):
    """The server adds discrete Gaussian noise of `variance` (squared steps) to the sum; clients have to trust it."""

    variance: int

    def on_server(self, total: Integers, entropy: Entropy) -> Integers:
        """Return the sum with noise."""
        return total + sample_discrete_gaussian(self.variance, len(total), entropy)


@dataclass(frozen=True)
class DistributedNoise(Postprocessor):
    """Every client adds its share, a discrete Gaussian, before its vector is masked (Kairouz, Liu and Steinke 2021).

    Any `shares` of them together have a variance of `variance` or more: see `honest_shares` for how many there must be.
    """

    variance: int
    shares: int

    @property
    def share(self) -> int:
        """Variance of one client's noise, rounded up."""
        return -(-self.variance // self.shares)

    def on_client(self, vector: Integers, entropy: Entropy) -> Integers:
        """Return the vector with a share of the noise."""
        return vector + sample_discrete_gaussian(self.share, len(vector), entropy)


def to_grid(vector: NDArray[np.float64], terms: PrivacyTerms, *, nearest: bool = False) -> Integers:
    """Return a vector [entries] on the grid, rounded towards 0; what is absurdly large is cut off first.

    nearest: rounds to the nearest instead: the inverse of `from_grid`.

    Raises ValueError for what is not finite.
    """
    if vector.ndim != 1 or not np.isfinite(vector).all():
        raise ValueError("a vector to be released must be finite")
    steps = np.clip(vector * (GRID_STEPS / terms.clip), -_LARGEST_STEPS, _LARGEST_STEPS)
    return (np.rint(steps) if nearest else np.trunc(steps)).astype(np.int64)


def from_grid(total: Integers, terms: PrivacyTerms) -> NDArray[np.float64]:
    """Return a sum [entries] of vectors on the grid as numbers."""
    return np.asarray(total * (terms.clip / GRID_STEPS), dtype=np.float64)


def apply_on_client(chain: Sequence[Postprocessor], vector: Integers, entropy: Entropy) -> Integers:
    """Apply the client's hooks of a chain."""
    for step in chain:
        vector = step.on_client(vector, entropy)
    return vector


def apply_on_server(chain: Sequence[Postprocessor], total: Integers, entropy: Entropy) -> Integers:
    """Apply the server's hooks of a chain."""
    for step in reversed(chain):
        total = step.on_server(total, entropy)
    return total
