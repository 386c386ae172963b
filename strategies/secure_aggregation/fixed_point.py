"""Vectors of numbers in [0, 1] as integers modulo a power of two.

The modulus exceeds the largest sum that the announced cohort can reach, so a sum never wraps and is exact. Mean and
precision-weighted mean of the fleet are both ratios of entries of the sum: `weighted_sensitivity` is precision times
sensitivity already (see personalization/wire/statistics.py).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from strategies.secure_aggregation.encoding import Encoding, Words


@dataclass(frozen=True)
class FixedPoint(Encoding):
    """fraction_bits: 1 becomes 2 ** fraction_bits - 1. cohort: how many vectors may be summed at most.

    Raises ValueError if a sum would not fit 64 bits.
    """

    fraction_bits: int
    cohort: int

    def __post_init__(self) -> None:
        if self.fraction_bits < 1 or self.cohort < 1 or self.bits > 64:
            raise ValueError("fixed point: the sum has to fit 64 bits")

    @property
    def one(self) -> int:
        """The integer that stands for 1."""
        return (1 << self.fraction_bits) - 1

    @property
    def bits(self) -> int:
        """Bits of the modulus: the fewest that hold the largest sum."""
        return (self.one * self.cohort).bit_length()

    def to_words(self, vector: NDArray[np.float64]) -> Words:
        """Return a vector [entries] as words, each the nearest. Raises ValueError for what is not in [0, 1]."""
        if vector.ndim != 1 or not (np.isfinite(vector).all() and (vector >= 0.0).all() and (vector <= 1.0).all()):
            raise ValueError("a vector for a secure sum must be finite and in [0, 1]")
        return np.rint(vector * self.one).astype(self.dtype)

    def to_sum(self, words: Words) -> NDArray[np.float64]:
        """Return the sum of vectors [entries] that words (modulo the modulus) stand for."""
        return np.asarray(self.reduced(words).astype(np.float64) / self.one)

    def fits(self, words: Words, members: int) -> bool:
        """Return whether no entry exceeds what so many vectors can add up to."""
        return not bool((words > self.one * members).any())
