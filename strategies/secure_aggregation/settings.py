"""What both ends agree on before a round, and the digest that every key of the round depends on."""

import hashlib
import struct
from dataclasses import dataclass

from personalization.errors import UserError

# Fewest clients of a cohort that a served fleet sums and a joined device takes part in, unless they are told otherwise.
# In sums of so many no attack tried finds more than the aim allows, round after round: docs/uplink.md.
SMALLEST_COHORT = 50
LARGEST_COHORT = 1 << 17
LARGEST_VECTOR = 1 << 20


@dataclass(frozen=True, kw_only=True)
class SecureAggregationSettings:
    """The same at server and clients; where they differ, the round fails and nothing is revealed.

    dropout: share of a cohort, below 0.5, that may vanish. corrupted: share of a cohort that may work with the server.
    smallest_cohort: a client takes part in nothing smaller. fraction_bits: bits of an entry. Raises UserError.
    """

    dropout: float = 0.3
    corrupted: float = 0.05
    smallest_cohort: int = 3
    fraction_bits: int = 16

    def __post_init__(self) -> None:
        if not 0.0 <= self.dropout < 0.5 or not 0.0 <= self.corrupted < 0.5:
            raise UserError("secure aggregation: dropout and corrupted: expected shares from 0 to below 0.5")
        if self.corrupted + 2.0 * self.dropout >= 0.9:
            raise UserError(
                f"secure aggregation: corrupted {self.corrupted} + twice dropout {self.dropout} leave too few honest "
                "clients; expected less than 0.9"
            )
        if not 3 <= self.smallest_cohort <= LARGEST_COHORT:
            raise UserError(f"secure aggregation: smallest cohort: expected 3 to {LARGEST_COHORT}")
        if not 1 <= self.fraction_bits <= 32:
            raise UserError("secure aggregation: fraction bits: expected 1 to 32")


@dataclass(frozen=True, kw_only=True)
class RoundName:
    """Which sum this is. fleet: its id. series, version: of the plan that is answered; together they rise through the
    life of a fleet. plan: digest [32 bytes] of all that the client was told to do. entries: length of the vector.

    Raises ValueError for what does not fit 32 bits, or a digest of the wrong length.
    """

    fleet: str
    series: int
    version: int
    plan: bytes
    entries: int

    def __post_init__(self) -> None:
        if not (0 <= self.series < 1 << 32 and 0 <= self.version < 1 << 32 and 0 < self.entries <= LARGEST_VECTOR):
            raise ValueError("series and version must fit 32 bits, and the vector needs a length")
        if len(self.plan) != 32:
            raise ValueError("the digest of a plan has 32 bytes")

    @property
    def place(self) -> bytes:
        """Return bytes that no server can choose at will: what the ring of the cohort is drawn from."""
        return _joined(b"fedsieve ring 1", self.fleet.encode(), struct.pack("<II", self.series, self.version))

    def session(self, settings: SecureAggregationSettings, *, cohort: int, degree: int, threshold: int) -> bytes:
        """Return the digest [32 bytes] of everything that has to be the same for all clients of the round.

        It goes into every key, so masks of clients that were told different things do not cancel.
        """
        numbers = struct.pack("<IIIIB", self.entries, cohort, degree, threshold, settings.fraction_bits)
        return hashlib.sha256(_joined(b"fedsieve session 1", self.place, self.plan, numbers)).digest()


def _joined(*parts: bytes) -> bytes:
    return b"".join(len(part).to_bytes(4, "little") + part for part in parts)
