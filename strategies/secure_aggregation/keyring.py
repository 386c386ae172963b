"""What a client keeps from round to round: its agreement key, whom it knows, and the last round it took part in."""

import struct
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from strategies.secure_aggregation.entropy import Entropy, system_entropy
from strategies.secure_aggregation.errors import MessageError, PeersUnknownError, RefusalError
from strategies.secure_aggregation.identity import (
    ADVERT_BYTES,
    FINGERPRINT_BYTES,
    advert_fingerprint,
    advertise,
    read_advert,
)
from strategies.secure_aggregation.masks import KEY_BYTES, pair_key
from strategies.secure_aggregation.settings import RoundName

_FORMAT = 1
_HEAD = struct.Struct(f"<BIqqHI{KEY_BYTES}s{ADVERT_BYTES}s")
_PEER = struct.Struct(f"<I{FINGERPRINT_BYTES}s{KEY_BYTES}s")
_NEVER = (-1, -1)


@dataclass(frozen=True)
class KnownPeer:
    """fingerprint: of the peer's enrolled key. key: the pair's lasting key [32 bytes]."""

    fingerprint: bytes
    key: bytes


@dataclass
class Keyring:
    """A client's keys for one epoch; secret, to be kept in the vault.

    private: agreement key [32 bytes]. advert: its advertisement. peers: by handle, the number under which the server
    introduced them. last: series and version of the last round that the client sent a masked vector for.
    """

    fleet: str
    epoch: int
    private: bytes
    advert: bytes
    peers: dict[int, KnownPeer] = field(default_factory=dict)
    last: tuple[int, int] = _NEVER

    @staticmethod
    def new(
        node: EllipticCurvePrivateKey,
        certificate: bytes,
        *,
        fleet: str,
        epoch: int,
        last: tuple[int, int] = _NEVER,
        entropy: Entropy = system_entropy,
    ) -> "Keyring":
        """Return a keyring with a new agreement key for an epoch. last: of the keyring that it replaces."""
        private = X25519PrivateKey.from_private_bytes(entropy(KEY_BYTES))
        public = private.public_key().public_bytes_raw()
        advert = advertise(node, certificate, fleet=fleet, epoch=epoch, public=public)
        return Keyring(fleet, epoch, private.private_bytes_raw(), advert, last=last)

    @property
    def fingerprint(self) -> bytes:
        """The fingerprint of the client's own enrolled key."""
        return advert_fingerprint(self.advert)

    def introduce(self, handle: int, advert: bytes, authority: Ed25519PublicKey) -> None:
        """Get to know a peer, or an old one anew: each node is kept under its last handle alone.

        Raises MessageError for an advertisement that no enrolled node has signed.
        """
        peer = read_advert(advert, authority, fleet=self.fleet, epoch=self.epoch)
        own = X25519PrivateKey.from_private_bytes(self.private)
        key = pair_key(own, peer.public, fleet=self.fleet, epoch=self.epoch)
        others = {number: known for number, known in self.peers.items() if known.fingerprint != peer.fingerprint}
        self.peers = {**others, handle: KnownPeer(peer.fingerprint, key)}

    def find(self, handle: int) -> KnownPeer:
        """Return a peer. Raises PeersUnknownError if nobody of this handle was introduced."""
        if handle not in self.peers:
            raise PeersUnknownError("a peer that was never introduced")
        return self.peers[handle]

    def use(self, name: RoundName) -> None:
        """Note that the client takes part in a round. Raises RefusalError if it did in this or a later one."""
        if name.fleet != self.fleet:
            raise RefusalError("a round of another fleet")
        if (name.series, name.version) <= self.last:
            raise RefusalError("a masked vector was sent for this round or a later one already")
        self.last = (name.series, name.version)

    def to_bytes(self) -> bytes:
        """Return everything as bytes, for the vault."""
        fleet = self.fleet.encode()
        head = _HEAD.pack(_FORMAT, self.epoch, *self.last, len(fleet), len(self.peers), self.private, self.advert)
        peers = (_PEER.pack(handle, peer.fingerprint, peer.key) for handle, peer in sorted(self.peers.items()))
        return b"".join([head, fleet, *peers])

    @staticmethod
    def from_bytes(raw: bytes) -> "Keyring":
        """Return what `to_bytes` wrote. Raises MessageError for anything else."""
        if len(raw) < _HEAD.size or raw[0] != _FORMAT:
            raise MessageError("not a keyring of this version")
        _, epoch, series, version, letters, count, private, advert = _HEAD.unpack_from(raw)
        start = _HEAD.size + letters
        if len(raw) != start + count * _PEER.size:
            raise MessageError("a keyring of the wrong length")
        try:
            fleet = raw[_HEAD.size : start].decode()
        except UnicodeDecodeError as error:
            raise MessageError("a keyring of no fleet") from error
        peers = {handle: KnownPeer(print_, key) for handle, print_, key in _PEER.iter_unpack(raw[start:])}
        return Keyring(fleet, epoch, private, advert, peers, (series, version))
