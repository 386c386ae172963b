"""Vectors of numbers in [0, 1] as integers modulo a power of two, and their bytes.

The modulus exceeds the largest sum that the announced cohort can reach, so a sum never wraps and is exact. Mean and
precision-weighted mean of the fleet are both ratios of entries of the sum: `weighted_sensitivity` is precision times
sensitivity already (see personalization/statistics.py).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from strategies.secure_aggregation.errors import MessageError

Words = NDArray[np.unsignedinteger]


@dataclass(frozen=True)
class FixedPoint:
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

    @property
    def dtype(self) -> np.dtype[np.unsignedinteger]:
        """Unsigned words, little-endian, that wrap at a multiple of the modulus."""
        return np.dtype("<u4" if self.bits <= 32 else "<u8")

    def packed_bytes(self, entries: int) -> int:
        """Return how many bytes `pack` makes of a vector."""
        return (entries * self.bits + 7) // 8

    def to_words(self, vector: NDArray[np.float64]) -> Words:
        """Return a vector [entries] as words, each the nearest. Raises ValueError for what is not in [0, 1]."""
        if vector.ndim != 1 or not (np.isfinite(vector).all() and (vector >= 0.0).all() and (vector <= 1.0).all()):
            raise ValueError("a vector for a secure sum must be finite and in [0, 1]")
        return np.rint(vector * self.one).astype(self.dtype)

    def reduced(self, words: Words) -> Words:
        """Return words modulo the modulus."""
        return np.bitwise_and(words, words.dtype.type((1 << self.bits) - 1))

    def to_sum(self, words: Words) -> NDArray[np.float64]:
        """Return the sum of vectors [entries] that words (modulo the modulus) stand for."""
        return np.asarray(self.reduced(words).astype(np.float64) / self.one)

    def pack(self, words: Words) -> bytes:
        """Return words as a stream of `bits` bits each, lowest first."""
        octets = np.ascontiguousarray(self.reduced(words).astype(self.dtype, copy=False)).view(np.uint8)
        bits = np.unpackbits(octets.reshape(len(words), -1), axis=1, count=self.bits, bitorder="little")
        return np.packbits(bits.ravel(), bitorder="little").tobytes()

    def unpack(self, raw: bytes, entries: int) -> Words:
        """Return the words [entries] of `pack`. Raises MessageError unless the length is exact."""
        if len(raw) != self.packed_bytes(entries):
            raise MessageError("a masked vector of the wrong length", reason="length")
        stream = np.unpackbits(np.frombuffer(raw, np.uint8), bitorder="little")
        if stream[entries * self.bits :].any():
            raise MessageError("a masked vector with more than its entries", reason="entries")
        bits = np.zeros((entries, 8 * self.dtype.itemsize), dtype=np.uint8)
        bits[:, : self.bits] = stream[: entries * self.bits].reshape(entries, self.bits)
        return np.packbits(bits, axis=1, bitorder="little").view(self.dtype).ravel()
