"""Who a public key belongs to: enrolment certifies the node's key, and the node's key signs the agreement key.

The authority that enrols nodes signs each node's P-384 key once, and every node knows the authority's public key from
enrolment. Neither needs the server: one that does not hold the authority's private key can't make up a client.
"""

import hashlib
import struct
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP384R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from strategies.secure_aggregation.errors import MessageError

FINGERPRINT_BYTES = 16
_POINT, _AUTHORITY_SIGNATURE, _NUMBER, _AGREEMENT = 49, 64, 48, 32
CERTIFICATE_BYTES = _POINT + _AUTHORITY_SIGNATURE
_ADVERT = struct.Struct(f"<{CERTIFICATE_BYTES}sI{_AGREEMENT}s{2 * _NUMBER}s")
ADVERT_BYTES = _ADVERT.size


@dataclass(frozen=True)
class Peer:
    """A client whose advertisement is right. fingerprint: of its enrolled key. public: its agreement key (X25519)."""

    fingerprint: bytes
    public: bytes


def certify(authority: Ed25519PrivateKey, fleet: str, node: EllipticCurvePublicKey) -> bytes:
    """Return a node's certificate [113 bytes]: its key, and the authority's signature over fleet and key."""
    point = node.public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    return point + authority.sign(_certified(fleet, point))


def check_certificate(raw: bytes, authority: Ed25519PublicKey, fleet: str, node: EllipticCurvePublicKey) -> None:
    """Return if a certificate is that of a node's key. Raises ValueError or InvalidSignature."""
    point = node.public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    if raw[:_POINT] != point or len(raw) != CERTIFICATE_BYTES:
        raise ValueError("the certificate of another key")
    authority.verify(raw[_POINT:], _certified(fleet, point))


def advertise(node: EllipticCurvePrivateKey, certificate: bytes, *, fleet: str, epoch: int, public: bytes) -> bytes:
    """Return an advertisement [245 bytes]: an agreement key [32 bytes] for an epoch, signed by an enrolled node key."""
    first, second = decode_dss_signature(node.sign(_advertised(fleet, epoch, public), ECDSA(SHA384())))
    signature = first.to_bytes(_NUMBER, "big") + second.to_bytes(_NUMBER, "big")
    return _ADVERT.pack(certificate, epoch, public, signature)


def read_advert(raw: bytes, authority: Ed25519PublicKey, *, fleet: str, epoch: int) -> Peer:
    """Return whose advertisement it is, once both signatures and the epoch are right. Raises MessageError."""
    if len(raw) != ADVERT_BYTES:
        raise MessageError("an advertisement of the wrong length", reason="length")
    certificate, advertised, public, signature = _ADVERT.unpack(raw)
    point, numbers = certificate[:_POINT], (signature[:_NUMBER], signature[_NUMBER:])
    if advertised != epoch:
        raise MessageError("an advertisement for another epoch", reason="epoch")
    try:
        authority.verify(certificate[_POINT:], _certified(fleet, point))
        key = EllipticCurvePublicKey.from_encoded_point(SECP384R1(), point)
        encoded = encode_dss_signature(*(int.from_bytes(number, "big") for number in numbers))
        key.verify(encoded, _advertised(fleet, epoch, public), ECDSA(SHA384()))
    except (InvalidSignature, ValueError) as error:
        raise MessageError("an advertisement that no enrolled node has signed", reason="signature") from error
    return Peer(_fingerprint(point), public)


def advert_fingerprint(raw: bytes) -> bytes:
    """Return the fingerprint of the node that an advertisement names, unverified. Raises MessageError."""
    if len(raw) != ADVERT_BYTES:
        raise MessageError("an advertisement of the wrong length", reason="length")
    return _fingerprint(raw[:_POINT])


def _fingerprint(point: bytes) -> bytes:
    return hashlib.sha256(point).digest()[:FINGERPRINT_BYTES]


def _certified(fleet: str, point: bytes) -> bytes:
    return b"fedsieve node 1" + point + fleet.encode()


def _advertised(fleet: str, epoch: int, public: bytes) -> bytes:
    return b"fedsieve agreement 1" + epoch.to_bytes(4, "little") + public + fleet.encode()
