"""How vectors become integers modulo a power of two that can be added under masks, and the bytes of those."""

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from strategies.secure_aggregation.errors import MessageError

Words = NDArray[np.unsignedinteger]


class Encoding(ABC):
    """One way of summing the vectors of one cohort. Both ends make it from what the round's plan says."""

    @property
    @abstractmethod
    def bits(self) -> int:
        """Bits of the modulus: enough that a sum does not wrap."""

    @abstractmethod
    def to_words(self, vector: NDArray[np.float64]) -> Words:
        """Return a vector [entries] as words. Raises ValueError for what does not fit."""

    @abstractmethod
    def to_sum(self, words: Words) -> NDArray[np.float64]:
        """Return the sum of vectors [entries] that words (modulo the modulus) stand for."""

    @abstractmethod
    def fits(self, words: Words, members: int) -> bool:
        """Return whether words, reduced, may be a sum of so many vectors."""

    @property
    def dtype(self) -> np.dtype[np.unsignedinteger]:
        """Unsigned words, little-endian, that wrap at a multiple of the modulus."""
        return np.dtype("<u4" if self.bits <= 32 else "<u8")

    def packed_bytes(self, entries: int) -> int:
        """Return how many bytes `pack` makes of a vector."""
        return (entries * self.bits + 7) // 8

    def reduced(self, words: Words) -> Words:
        """Return words modulo the modulus."""
        return np.bitwise_and(words, words.dtype.type((1 << self.bits) - 1))

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
