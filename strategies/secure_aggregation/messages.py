"""The messages as bytes, little-endian. A decoder takes exact lengths, allocates no more than it was given several
times over, and raises MessageError alone.

Peers are never named twice: where a message says something about each, it does so in their order by handle, as a bit
or as a record of fixed size.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from strategies.secure_aggregation.errors import MessageError
from strategies.secure_aggregation.identity import ADVERT_BYTES
from strategies.secure_aggregation.masks import KEY_BYTES
from strategies.secure_aggregation.settings import LARGEST_COHORT
from strategies.secure_aggregation.shamir import SHARE_BYTES

INVITATION, MASKED, PAIR_REQUEST, PAIR_REPLY, SHARE_REQUEST, SHARE_REPLY = range(0xA1, 0xA7)
TAG_BYTES, COMMITMENT_BYTES, NONCE_BYTES = 8, 16, 8
SEALED_BYTES = 2 * SHARE_BYTES  # a share and its authentication tag
_INVITATION = struct.Struct("<BIIIII")
_INTRODUCTION = struct.Struct(f"<I{ADVERT_BYTES}s")
_MASKED = struct.Struct(f"<B{COMMITMENT_BYTES}s{NONCE_BYTES}s")
_REQUEST = struct.Struct(f"<B{TAG_BYTES}s")

Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Invitation:
    """Down: take part. handle: the client's own. peers [degree]: rising handles. introductions: of those peers that the
    client does not know yet.
    """

    cohort: int
    handle: int
    peers: NDArray[np.uint32]
    introductions: dict[int, bytes] = field(default_factory=dict)

    def encode(self) -> bytes:
        """Return 21 bytes, a bit for each handle from the first peer's to the last one's, and 249 an introduction."""
        first = int(self.peers[0]) if len(self.peers) else 0
        flags = np.zeros(int(self.peers[-1]) - first + 1 if len(self.peers) else 0, dtype=np.bool_)
        flags[self.peers - np.uint32(first)] = True
        packed, adverts = _packed(flags), sorted(self.introductions.items())
        head = _INVITATION.pack(INVITATION, self.cohort, self.handle, first, len(packed), len(adverts))
        return b"".join([head, packed, *(_INTRODUCTION.pack(handle, advert) for handle, advert in adverts)])

    @staticmethod
    def decode(raw: bytes) -> "Invitation":
        """Return the invitation. Raises MessageError."""
        if len(raw) < _INVITATION.size:
            raise MessageError("an invitation that is cut short")
        kind, cohort, handle, first, width, adverts = _INVITATION.unpack_from(raw)
        start = _INVITATION.size + width
        if kind != INVITATION or width > LARGEST_COHORT or len(raw) != start + adverts * _INTRODUCTION.size:
            raise MessageError("not an invitation, or of the wrong length")
        peers = _peers(first, raw[_INVITATION.size : start])
        if not len(peers) < cohort <= LARGEST_COHORT or (peers == handle).any():
            raise MessageError("an invitation whose peers are not others of its cohort")
        introductions = dict(_INTRODUCTION.iter_unpack(raw[start:]))
        if len(introductions) != adverts or not introductions.keys() <= set(peers.tolist()):
            raise MessageError("an invitation that introduces others than its peers, each once")
        return Invitation(cohort, handle, peers, introductions)


@dataclass(frozen=True)
class MaskedInput:
    """Up: the masked vector. commitment: to the secret of the self mask. sealed: its shares for the peers that can't
    derive theirs, in their order. nonce: of the sealing.
    """

    commitment: bytes
    nonce: bytes
    sealed: list[bytes]
    vector: bytes

    def encode(self) -> bytes:
        """Return 25 bytes, 32 a sealed share, and the vector."""
        return b"".join([_MASKED.pack(MASKED, self.commitment, self.nonce), *self.sealed, self.vector])

    @staticmethod
    def decode(raw: bytes, *, shares: int, vector_bytes: int) -> "MaskedInput":
        """Return the message with so many shares. Raises MessageError."""
        start = _MASKED.size + shares * SEALED_BYTES
        if len(raw) != start + vector_bytes or raw[0] != MASKED:
            raise MessageError("not a masked vector, or of the wrong length", reason="length")
        _, commitment, nonce = _MASKED.unpack_from(raw)
        return MaskedInput(commitment, nonce, _records(raw[_MASKED.size : start], SEALED_BYTES), raw[start:])


@dataclass(frozen=True)
class PairRequest:
    """Down: these peers vanished before they sent anything; tell the masks that they share with you.

    tag: the first bytes of the session. dead: one flag for each peer.
    """

    tag: bytes
    dead: Flags

    def encode(self) -> bytes:
        """Return 9 bytes and a bit a peer."""
        return _REQUEST.pack(PAIR_REQUEST, self.tag) + _packed(self.dead)

    @staticmethod
    def decode(raw: bytes, *, peers: int) -> "PairRequest":
        """Return the request. Raises MessageError."""
        tag, (dead,), _ = _request(raw, PAIR_REQUEST, peers, flags=1)
        return PairRequest(tag, dead)


@dataclass(frozen=True)
class PairReply:
    """Up: the key of the mask shared with each peer that was asked for, in order."""

    keys: list[bytes]

    def encode(self) -> bytes:
        """Return 1 byte and 32 a key."""
        return b"".join([bytes([PAIR_REPLY]), *self.keys])

    @staticmethod
    def decode(raw: bytes, *, keys: int) -> "PairReply":
        """Return the reply with so many keys. Raises MessageError."""
        return PairReply(_reply(raw, PAIR_REPLY, keys, KEY_BYTES))


@dataclass(frozen=True)
class ShareRequest:
    """Down: these peers sent their vectors; tell your shares of their self masks.

    sealed: for some of the alive peers their nonce and the share that they sealed for this client; the shares of the
    others are derived. There is no second request.
    """

    tag: bytes
    alive: Flags
    sealed: dict[int, tuple[bytes, bytes]]

    def encode(self) -> bytes:
        """Return 9 bytes, two bits a peer and 40 bytes a sealed share. sealed: by the peer's place."""
        given = np.zeros(len(self.alive), dtype=np.bool_)
        given[list(self.sealed)] = True
        records = [part for place in sorted(self.sealed) for part in self.sealed[place]]
        return b"".join([_REQUEST.pack(SHARE_REQUEST, self.tag), _packed(self.alive), _packed(given), *records])

    @staticmethod
    def decode(raw: bytes, *, peers: int) -> "ShareRequest":
        """Return the request. Raises MessageError."""
        tag, (alive, given), rest = _request(raw, SHARE_REQUEST, peers, flags=2)
        places, size = np.flatnonzero(given).tolist(), NONCE_BYTES + SEALED_BYTES
        if len(rest) != len(places) * size or (given & ~alive).any():
            raise MessageError("a request with other shares than it says")
        records = [(record[:NONCE_BYTES], record[NONCE_BYTES:]) for record in _records(rest, size)]
        return ShareRequest(tag, alive, dict(zip(places, records, strict=True)))


@dataclass(frozen=True)
class ShareReply:
    """Up: the share of each alive peer's self mask, in order. All ones stands for one that could not be opened."""

    shares: list[bytes]

    def encode(self) -> bytes:
        """Return 1 byte and 16 a share."""
        return b"".join([bytes([SHARE_REPLY]), *self.shares])

    @staticmethod
    def decode(raw: bytes, *, shares: int) -> "ShareReply":
        """Return the reply with so many shares. Raises MessageError."""
        return ShareReply(_reply(raw, SHARE_REPLY, shares, SHARE_BYTES))


def _peers(first: int, packed: bytes) -> NDArray[np.uint32]:
    """Return rising handles; there is one way alone to write them."""
    peers = first + np.flatnonzero(np.unpackbits(np.frombuffer(packed, np.uint8), bitorder="little"))
    canonical = packed[0] & 1 and packed[-1] if packed else first == 0
    if not canonical or (len(peers) and peers[-1] >= 1 << 32):
        raise MessageError("an invitation whose peers are not written as they have to be")
    return peers.astype(np.uint32)


def _packed(flags: Flags) -> bytes:
    return np.packbits(flags, bitorder="little").tobytes()


def _unpacked(raw: bytes, count: int) -> Flags:
    bits = np.unpackbits(np.frombuffer(raw, np.uint8), bitorder="little")
    if bits[count:].any():
        raise MessageError("a request about more peers than there are")
    return bits[:count].astype(np.bool_)


def _request(raw: bytes, kind: int, peers: int, *, flags: int) -> tuple[bytes, Sequence[Flags], bytes]:
    width = (peers + 7) // 8
    if len(raw) < _REQUEST.size + flags * width or raw[0] != kind or (flags == 1 and len(raw) != _REQUEST.size + width):
        raise MessageError("not the request that was expected, or of the wrong length")
    starts = [_REQUEST.size + number * width for number in range(flags)]
    found = [_unpacked(raw[start : start + width], peers) for start in starts]
    return raw[1 : _REQUEST.size], found, raw[starts[-1] + width :]


def _reply(raw: bytes, kind: int, count: int, size: int) -> list[bytes]:
    if len(raw) != 1 + count * size or raw[0] != kind:
        raise MessageError("not the reply that was expected, or of the wrong length", reason="length")
    return _records(raw[1:], size)


def _records(raw: bytes, size: int) -> list[bytes]:
    return [raw[start : start + size] for start in range(0, len(raw), size)]
