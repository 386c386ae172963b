"""Seal bytes with AES-256-GCM, bound to the vault, the name and the generation that they belong to."""

import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import GCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from personalization.errors import UserError

KEY_BYTES = 32
VAULT_ID_BYTES = 16
_MAGIC = b"FSV1"
_FAMILY = _MAGIC[:3]
# Magic, vault, key id, generation, nonce; all of it is authenticated with the contents.
_HEADER = struct.Struct(f">4s{VAULT_ID_BYTES}s8sQ12s")
_TAG_BYTES = 16
_CHUNK_BYTES = 1 << 26


class SealError(Exception):
    """Sealed bytes that are not what they should be: cut short, changed, or made for another place."""


class UnknownKeyError(SealError):
    """Sealed with a key that is not at hand."""


class UnknownFormatError(SealError):
    """Sealed by a version of fedsieve that writes another format."""


@dataclass(frozen=True)
class VaultKey:
    """A secret of 32 bytes; what encrypts and the id that files carry are derived from it (HKDF, RFC 5869)."""

    secret: bytes = field(repr=False)
    cipher_key: bytes = field(init=False, repr=False, compare=False)
    id: bytes = field(init=False)

    def __post_init__(self) -> None:
        """Derive what is used. Raises UserError if the secret is not 32 bytes long."""
        if len(self.secret) != KEY_BYTES:
            raise UserError(f"a vault key has {KEY_BYTES} bytes, this one has {len(self.secret)}")
        object.__setattr__(self, "cipher_key", _derive(self.secret, b"fedsieve vault cipher", KEY_BYTES))
        object.__setattr__(self, "id", _derive(self.secret, b"fedsieve vault key id", 8))

    @staticmethod
    def generate() -> "VaultKey":
        """Return a new key from the operating system's randomness."""
        return VaultKey(os.urandom(KEY_BYTES))

    @staticmethod
    def from_text(text: str, source: str) -> "VaultKey":
        """Return the key that `source` holds as 64 hexadecimal digits. Raises UserError; the text is never shown."""
        try:
            secret = bytes.fromhex(text.strip())
        except ValueError:
            secret = b""
        if len(secret) != KEY_BYTES:
            raise UserError(f"{source}: not a vault key; expected {2 * KEY_BYTES} hexadecimal digits and nothing else")
        return VaultKey(secret)

    def to_text(self) -> str:
        """Return the key as 64 hexadecimal digits."""
        return self.secret.hex()


@dataclass(frozen=True)
class SealHeader:
    """What sealed bytes say about themselves in the open; true only once they have been unsealed."""

    vault: bytes
    key_id: bytes
    generation: int


def seal(data: bytes, *, key: VaultKey, vault: bytes, name: str, generation: int) -> bytes:
    """Return `data` encrypted and authenticated: header [48 bytes], ciphertext, tag [16 bytes].

    vault [16 bytes], name and generation must be given again, or be found in the header, to unseal. The nonce is
    random, 96 bits: a key must not seal more than 2**32 times (NIST SP 800-38D, 8.3).
    """
    nonce = os.urandom(12)
    header = _HEADER.pack(_MAGIC, vault, key.id, generation, nonce)
    encryptor = Cipher(AES256(key.cipher_key), GCM(nonce)).encryptor()
    encryptor.authenticate_additional_data(_bound(header, name))
    # A piece at a time: one call takes at most 2 GiB.
    view = memoryview(data)
    parts = [encryptor.update(view[i : i + _CHUNK_BYTES]) for i in range(0, len(view), _CHUNK_BYTES)]
    encryptor.finalize()
    return b"".join((header, *parts, encryptor.tag))


def read_header(raw: bytes) -> SealHeader:
    """Return what the header says, unchecked. Raises SealError, UnknownFormatError."""
    if len(raw) < _HEADER.size + _TAG_BYTES:
        raise SealError("cut short")
    magic, vault, key_id, generation, _ = _HEADER.unpack_from(raw)
    if magic != _MAGIC:
        raise (UnknownFormatError if magic.startswith(_FAMILY) else SealError)("not a sealed file of this version")
    return SealHeader(vault, key_id, generation)


def unseal(raw: bytes, *, keys: Sequence[VaultKey], name: str) -> tuple[bytes, SealHeader]:
    """Return what was sealed under `name` with one of `keys`, and its header, now known to be true.

    Raises UnknownKeyError, UnknownFormatError, and SealError for anything that was changed.
    """
    found = read_header(raw)
    key = next((key for key in keys if key.id == found.key_id), None)
    if key is None:
        raise UnknownKeyError("sealed with another key")
    header, end = raw[: _HEADER.size], len(raw) - _TAG_BYTES
    decryptor = Cipher(AES256(key.cipher_key), GCM(header[-12:], raw[end:])).decryptor()
    decryptor.authenticate_additional_data(_bound(header, name))
    view = memoryview(raw)
    starts = range(_HEADER.size, end, _CHUNK_BYTES)
    parts = [decryptor.update(view[i : min(i + _CHUNK_BYTES, end)]) for i in starts]
    try:
        decryptor.finalize()
    except InvalidTag:
        raise SealError("changed since it was written") from None
    return b"".join(parts), found


def _bound(header: bytes, name: str) -> bytes:
    return header + name.encode()


def _derive(secret: bytes, purpose: bytes, length: int) -> bytes:
    return HKDFExpand(SHA256(), length, purpose).derive(secret)
