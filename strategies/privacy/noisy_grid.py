"""Clipped and noisy vectors in secure sums: signed integers modulo a power of two that they do not overflow.

An entry of a sum of n vectors is at most n times the clipping norm, plus noise that is subgaussian with its variance
parameter (Canonne et al. 2020, corollary 17; sums add up). By a union bound over all entries the modulus is exceeded
with probability at most 2 ** -40 a round; then an entry wraps, and the estimate is wrong, but no more is revealed.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from personalization.wire.privacy_terms import GRID_STEPS, PrivacyTerms
from strategies.privacy.discrete_gaussian import Integers
from strategies.privacy.mechanism import make_chain
from strategies.privacy.postprocessor import DistributedNoise, Postprocessor, apply_on_client, from_grid, to_grid
from strategies.secure_aggregation.encoding import Encoding, Words
from strategies.secure_aggregation.entropy import Entropy, system_entropy

OVERFLOW_BITS = 40


@dataclass(frozen=True)
class NoisyGrid(Encoding):
    """terms: of the round's plan. cohort: as announced. entries: length of the vector. entropy: of a client's noise."""

    terms: PrivacyTerms
    cohort: int
    entries: int
    entropy: Entropy = system_entropy

    @property
    def chain(self) -> tuple[Postprocessor, ...]:
        """What vectors and sums go through."""
        return make_chain(self.terms, self.cohort)

    @property
    def bound(self) -> int:
        """The largest size of an entry of a sum, but for a probability of 2 ** -40."""
        shares = sum(step.share for step in self.chain if isinstance(step, DistributedNoise))
        tail = 2.0 * self.cohort * shares * (math.log(2 * self.entries) + OVERFLOW_BITS * math.log(2.0))
        return self.cohort * GRID_STEPS + math.ceil(math.sqrt(tail))

    @property
    def bits(self) -> int:
        """Bits of the modulus: the fewest that hold all integers from -bound to bound."""
        return (2 * self.bound).bit_length()

    def to_words(self, vector: NDArray[np.float64]) -> Words:
        """Return a vector [entries], clipped and with this client's share of noise if there is one, as words."""
        integers = apply_on_client(self.chain, to_grid(vector, self.terms), self.entropy)
        return (integers % (1 << self.bits)).astype(self.dtype)

    def to_integers(self, words: Words) -> Integers:
        """Return the signed integers [entries] that words (modulo the modulus) stand for."""
        unsigned = self.reduced(words).astype(np.int64)
        return np.where(unsigned > self.bound, unsigned - (1 << self.bits), unsigned)

    def to_sum(self, words: Words) -> NDArray[np.float64]:
        """Return the sum of vectors [entries], with the noise of clients."""
        return from_grid(self.to_integers(words), self.terms)

    def fits(self, words: Words, members: int) -> bool:
        """Return whether no entry is larger than it may be."""
        del members
        return bool((np.abs(self.to_integers(words)) <= self.bound).all())
