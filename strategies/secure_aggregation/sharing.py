"""How a client's self mask is shared among its peers: most shares are derived by both ends, the rest are sealed."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from numpy.typing import NDArray

from strategies.secure_aggregation.masks import PairKeys
from strategies.secure_aggregation.messages import NONCE_BYTES
from strategies.secure_aggregation.shamir import SHARE_BYTES, extend, to_bytes, uniform

UNKNOWN_SHARE = b"\xff" * SHARE_BYTES  # no value of the field


def holders(own: int, peers: NDArray[np.uint32], threshold: int) -> tuple[list[int], list[int]]:
    """Return the places in `peers` of those that derive their share, threshold - 1, and of those that are sent one.

    It begins with the next handle and goes round, so that in a complete graph everybody is sent as many as it sends.
    """
    order = np.roll(np.arange(len(peers)), -int(np.searchsorted(peers, own))).tolist()
    return sorted(order[: threshold - 1]), sorted(order[threshold - 1 :])


def points(places: Sequence[int]) -> list[int]:
    """Return the points at which the polynomial of a self mask has the shares of peers; the secret is at 0."""
    return [place + 1 for place in places]


@dataclass(frozen=True)
class Pair:
    """One end's view of a pair in a round. own, peer: fingerprints, which also say who adds and who subtracts."""

    keys: PairKeys
    session: bytes
    own: bytes
    peer: bytes

    @property
    def adds(self) -> bool:
        """Whether this end adds the pair's mask; the other one subtracts it."""
        return self.own < self.peer

    def share_for_peer(self) -> int:
        """Return the derived share of the own secret that the peer holds."""
        return uniform(self.keys.derived_up if self.adds else self.keys.derived_down)

    def share_of_peer(self) -> bytes:
        """Return the derived share [16 bytes] of the peer's secret that this end holds."""
        return to_bytes(uniform(self.keys.derived_down if self.adds else self.keys.derived_up))

    def seal(self, share: int, nonce: bytes) -> bytes:
        """Return a share [32 bytes] that only the peer can open, and only as this one: from, to and for this round."""
        context = self.session + self.own + self.peer
        return self._cipher().encrypt(_nonce(nonce, self.adds), to_bytes(share), context)

    def open(self, sealed: bytes, nonce: bytes) -> bytes:
        """Return the share [16 bytes] that the peer sealed, or all ones if it did not seal this."""
        context = self.session + self.peer + self.own
        try:
            return self._cipher().decrypt(_nonce(nonce, not self.adds), sealed, context)
        except InvalidTag:
            return UNKNOWN_SHARE

    def _cipher(self) -> ChaCha20Poly1305:
        return ChaCha20Poly1305(self.keys.sealing)


def explicit_shares(secret: int, derived: dict[int, int], explicit: Sequence[int]) -> list[int]:
    """Return the shares of peers at the places `explicit`. derived: share by place, one fewer than the threshold."""
    known = {0: secret, **{place + 1: share for place, share in derived.items()}}
    return extend(known, points(explicit))


def _nonce(nonce: bytes, upwards: bool) -> bytes:
    return nonce + bytes([upwards]) + bytes(12 - NONCE_BYTES - 1)
