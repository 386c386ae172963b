"""The authority that vouches for devices in secure sums: its key is needed to enrol, and by no server.

A server that held it could make up devices, and be all the peers of one. So it may be kept off the server: moved away
from the fleet's folder, and named when devices are enrolled.
"""

import base64
import json
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_ssh_public_key

from personalization.errors import UserError
from personalization.system.files import write_atomically
from personalization.system.private_files import read_private
from server.enrolment_file import EnrolmentFile, read_enrolment_file
from strategies.secure_aggregation.identity import certify, check_certificate

FORMAT = 1
ENROLMENT_KEY, ENROLMENT = "enrolment-key.json", "enrolment.json"
_WHAT = "enrolment key"


@dataclass(frozen=True)
class EnrolmentKey:
    """fleet: its id. private_key: None where it is kept elsewhere and nothing was said about where."""

    public: EnrolmentFile
    private_key: Ed25519PrivateKey | None

    def certificate(self, fleet: str, public_key: str, *, known: str = "") -> str:
        """Return the certificate (base64) of a node by its public key (OpenSSH). known: returned if it is that already.

        Raises UserError if one has to be made and the private key is not here.
        """
        node = load_ssh_public_key(public_key.encode())
        assert isinstance(node, EllipticCurvePublicKey)
        if known and self._is_right(base64.b64decode(known), fleet, node):
            return known
        return base64.b64encode(certify(self.check_private(), fleet, node)).decode()

    def check_private(self) -> Ed25519PrivateKey:
        """Return the private key. Raises UserError if it is not here."""
        if self.private_key is None:
            raise UserError(
                f"{ENROLMENT_KEY}: no longer in the fleet's folder, and a device's certificate has to be made with it; "
                "name it: --enrolment-key FILE"
            )
        return self.private_key

    def _is_right(self, certificate: bytes, fleet: str, node: EllipticCurvePublicKey) -> bool:
        try:
            check_certificate(certificate, self.public.authority, fleet, node)
        except (InvalidSignature, ValueError):
            return False
        return True


def make_enrolment_key(folder: Path, fleet: str) -> None:
    """Make the key of a fleet that has none yet; its public half is written last. Raises OSError, UserError.

    Called again after it was cut off, it takes over the key that it wrote.
    """
    if (folder / ENROLMENT).exists():
        return
    path = folder / ENROLMENT_KEY
    if not path.exists():
        secret = base64.b64encode(Ed25519PrivateKey.generate().private_bytes_raw()).decode()
        record = {"format": FORMAT, "fleet": fleet, "private_key": secret}
        write_atomically(path, json.dumps(record, indent=1).encode())
    write_atomically(folder / ENROLMENT, EnrolmentFile(fleet, _read(path, fleet).public_key()).to_json())


def open_enrolment_key(folder: Path, fleet: str, *, elsewhere: Path | None = None) -> EnrolmentKey:
    """Return the key of a fleet's folder. elsewhere: the file of its private half, if that was moved.

    Raises UserError if a file is damaged, open to others, or another fleet's, or where `elsewhere` is not there.
    """
    public = read_enrolment_file(folder / ENROLMENT)
    if public.fleet != fleet:
        raise UserError(f"{folder / ENROLMENT}: of another fleet; restore it from a backup of the fleet folder")
    path = elsewhere or folder / ENROLMENT_KEY
    if elsewhere is None and not path.exists():
        return EnrolmentKey(public, None)
    private = _read(path, fleet)
    if private.public_key() != public.authority:
        raise UserError(f"{path}: not the key of {folder / ENROLMENT}; name the one that was made with it")
    return EnrolmentKey(public, private)


def _read(path: Path, fleet: str) -> Ed25519PrivateKey:
    raw = read_private(path, _WHAT)
    try:
        record = json.loads(raw)
        if record["format"] != FORMAT or record["fleet"] != fleet:
            raise ValueError("not this fleet's key")
        return Ed25519PrivateKey.from_private_bytes(base64.b64decode(record["private_key"], validate=True))
    except (ValueError, KeyError, TypeError, RecursionError):
        raise UserError(f"{path}: not the {_WHAT} of fleet {fleet}; restore it from a backup") from None
