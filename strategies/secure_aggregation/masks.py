"""Pairwise keys, and masks that cancel in the sum: X25519, HKDF-SHA-256, and ChaCha20 as the generator.

Bonawitz et al. 2017, "Practical Secure Aggregation for Privacy-Preserving Machine Learning": of two clients that share
a key, one adds the mask that follows from it and the other subtracts it. The keys of a round are drawn from the pair's
lasting key and the round's session, so that a revealed mask of one round says nothing about another.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

from strategies.secure_aggregation.encoding import Words
from strategies.secure_aggregation.errors import MessageError

KEY_BYTES = 32
_NONCE = bytes(16)


@dataclass(frozen=True)
class PairKeys:
    """What two clients share for one round. mask: key of the mask. sealing: key of the shares that they send.

    derived_up, derived_down: what the share of the one with the lower fingerprint for the other follows from, and back.
    """

    mask: bytes
    sealing: bytes
    derived_up: bytes
    derived_down: bytes


def pair_key(own: X25519PrivateKey, peer: bytes, *, fleet: str, epoch: int) -> bytes:
    """Return the lasting key [32 bytes] of two clients, the same at both. peer: X25519 public key [32 bytes].

    Raises MessageError for a public key with which everybody would get the same key.
    """
    public = own.public_key().public_bytes_raw()
    try:
        shared = own.exchange(X25519PublicKey.from_public_bytes(peer))
    except ValueError as error:
        raise MessageError("an unusable public key") from error
    info = b"fedsieve pair 1" + epoch.to_bytes(4, "little") + fleet.encode()
    return HKDF(SHA256(), KEY_BYTES, salt=b"".join(sorted((public, peer))), info=info).derive(shared)


def round_keys(pair: bytes, session: bytes) -> PairKeys:
    """Return the keys of a pair for one round. session: its digest [32 bytes]."""
    stream = HKDFExpand(SHA256(), 4 * KEY_BYTES, info=b"fedsieve round 1" + session).derive(pair)
    return PairKeys(*(stream[start : start + KEY_BYTES] for start in range(0, len(stream), KEY_BYTES)))


def self_mask_key(secret: bytes, session: bytes) -> bytes:
    """Return the key of a client's self mask, from the secret that is shared among its peers."""
    return hashlib.sha256(b"fedsieve self mask 1" + session + secret).digest()


def commitment(secret: bytes, session: bytes) -> bytes:
    """Return 16 bytes by which the server recognizes a rightly recovered secret; they do not give it away."""
    return hashlib.sha256(b"fedsieve commitment 1" + session + secret).digest()[:16]


def mask(key: bytes, words: int, dtype: np.dtype[np.unsignedinteger]) -> Words:
    """Return the mask [words] of a key: the ChaCha20 keystream. A key has one mask only, so the nonce is fixed."""
    stream = Cipher(ChaCha20(key, _NONCE), mode=None).encryptor().update(bytes(words * dtype.itemsize))
    return np.frombuffer(stream, dtype=dtype)


def add_mask(total: Words, key: bytes) -> None:
    """Add the mask of a key to `total`, in place, modulo the word."""
    np.add(total, mask(key, len(total), total.dtype), out=total)


def subtract_mask(total: Words, key: bytes) -> None:
    """Take the mask of a key from `total`, in place, modulo the word."""
    np.subtract(total, mask(key, len(total), total.dtype), out=total)
