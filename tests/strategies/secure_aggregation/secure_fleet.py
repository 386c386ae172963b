"""A fleet that sums securely in process: every state goes through its bytes between steps, as on a device."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, EllipticCurvePrivateKey, derive_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from numpy.typing import NDArray

from strategies.secure_aggregation.client import mask_input, reveal_pairs, reveal_shares
from strategies.secure_aggregation.entropy import Entropy
from strategies.secure_aggregation.errors import SecureAggregationError
from strategies.secure_aggregation.fixed_point import FixedPoint
from strategies.secure_aggregation.identity import certify
from strategies.secure_aggregation.keyring import Keyring, KnownPeer
from strategies.secure_aggregation.masks import pair_key
from strategies.secure_aggregation.messages import PAIR_REQUEST
from strategies.secure_aggregation.participation import Participation
from strategies.secure_aggregation.server import SecureSum
from strategies.secure_aggregation.settings import RoundName, SecureAggregationSettings

FLEET = "0123456789abcdef"
AUTHORITY = Ed25519PrivateKey.from_private_bytes(b"a" * 32)


def seeded(seed: int) -> Entropy:
    return np.random.default_rng(seed).bytes


def node_key(number: int) -> EllipticCurvePrivateKey:
    return derive_private_key(number + 1, SECP384R1())


def make_keyring(number: int, seed: int = 0) -> Keyring:
    key = node_key(number)
    certificate = certify(AUTHORITY, FLEET, key.public_key())
    return Keyring.new(key, certificate, fleet=FLEET, epoch=1, entropy=seeded(1000 * seed + number))


def round_name(version: int = 1, entries: int = 5, plan: bytes = bytes(32)) -> RoundName:
    return RoundName(fleet=FLEET, series=1, version=version, plan=plan, entries=entries)


@dataclass
class Device:
    """A client, whose state is bytes between messages."""

    keyring: bytes
    participation: bytes = b""
    stages: list[int] = field(default_factory=list)

    def mask(
        self,
        raw: bytes,
        vector: NDArray[np.float64],
        name: RoundName,
        settings: SecureAggregationSettings,
        entropy: Entropy,
    ) -> bytes:
        keyring = Keyring.from_bytes(self.keyring)
        public = AUTHORITY.public_key()
        try:
            message, participation = mask_input(
                keyring, raw, vector, name=name, settings=settings, authority=public, entropy=entropy
            )
        finally:
            self.keyring = keyring.to_bytes()
        self.participation = participation.to_bytes()
        return message

    def answer(self, raw: bytes) -> bytes:
        step = reveal_pairs if raw[0] == PAIR_REQUEST else reveal_shares
        message, after = step(Keyring.from_bytes(self.keyring), Participation.from_bytes(self.participation), raw)
        self.participation = after.to_bytes()
        self.stages.append(raw[0])
        return message


class Fleet:
    """Devices that all know each other. vanish(exchange, handles) says who of those asked does not answer."""

    def __init__(self, clients: int, *, seed: int = 0, settings: SecureAggregationSettings | None = None) -> None:
        self.settings = settings or SecureAggregationSettings()
        rings = {7 * number + 3: make_keyring(number, seed) for number in range(clients)}
        self.adverts = {handle: ring.advert for handle, ring in rings.items()}
        for ring in rings.values():
            ring.peers = {handle: _known(ring, other) for handle, other in rings.items() if other is not ring}
        self._fresh = {handle: ring.to_bytes() for handle, ring in rings.items()}
        self.devices: dict[int, Device] = {}
        self.reset()

    def reset(self) -> None:
        """Bring all devices back to where they know each other and have sent nothing."""
        self.devices = {handle: Device(raw) for handle, raw in self._fresh.items()}

    def server(self, name: RoundName) -> SecureSum:
        return SecureSum(self.adverts, name=name, settings=self.settings)

    def invitations(self, server: SecureSum) -> dict[int, bytes]:
        return server.invitations(dict.fromkeys(self.adverts, self.adverts.keys()))

    def run(
        self,
        vectors: Mapping[int, NDArray[np.float64]],
        *,
        name: RoundName,
        vanish: Callable[[int, Collection[int]], Iterable[int]] = lambda exchange, asked: (),
        seed: int = 0,
    ) -> SecureSum:
        """Run the protocol until the server has a sum; raises what it or an honest client raises."""
        server, entropy = self.server(name), seeded(seed)
        requests, exchange, gone = self.invitations(server), 0, set[int]()
        while requests:
            gone |= set(vanish(exchange, sorted(requests.keys() - gone)))
            replies = {}
            for handle in requests.keys() - gone:
                device = self.devices[handle]
                if exchange == 0:
                    replies[handle] = device.mask(requests[handle], vectors[handle], name, self.settings, entropy)
                else:
                    replies[handle] = device.answer(requests[handle])
            requests, exchange = server.advance(replies), exchange + 1
        return server

    def plain_sum(self, vectors: Mapping[int, NDArray[np.float64]], clients: Iterable[int]) -> NDArray[np.uint64]:
        fixed = FixedPoint(self.settings.fraction_bits, len(self.adverts))
        rows = [fixed.to_words(vectors[handle]).astype(np.uint64) for handle in clients]
        return np.asarray(np.sum(rows, axis=0), dtype=np.uint64)


def _known(own: Keyring, other: Keyring) -> KnownPeer:
    """What `Keyring.introduce` learns, without the time that the signatures take."""
    private, public = (X25519PrivateKey.from_private_bytes(ring.private) for ring in (own, other))
    key = pair_key(private, public.public_key().public_bytes_raw(), fleet=FLEET, epoch=1)
    return KnownPeer(other.fingerprint, key)


def refuses(action: Callable[[], object], kind: type[SecureAggregationError]) -> bool:
    """Return whether an action raises exactly this error."""
    try:
        action()
    except SecureAggregationError as error:
        return type(error) is kind
    return False
