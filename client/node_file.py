"""The one file that is carried to a device: who it is, where its server is, and whom it trusts."""

import base64
import binascii
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_ssh_private_key

from personalization.errors import UserError
from personalization.private_files import read_private

FORMAT = 1
_WHAT = "node file"


@dataclass(frozen=True, kw_only=True)
class NodeFile:
    """What one device is enrolled with.

    fleet: id of its fleet. name: what its operator calls it. node: its id, from its key. server: host:port.
    private_key: P-384 in OpenSSH form, with which it signs on at the server. authority: certificate (PEM) of the
    authority that signed the server's. verify_key: Ed25519 public key (base64) that plans are checked with. model: root
    hash (hexadecimal) of the only backbone that it takes; None takes any that the server signs.
    """

    fleet: str
    name: str
    node: str
    server: str
    private_key: str
    authority: str
    verify_key: str
    model: str | None

    def to_json(self) -> bytes:
        """Return the contents of the file: a secret, to be written with mode 600."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=1).encode()


def read_node_file(path: Path) -> NodeFile:
    """Return what a node file of mode 600 holds. Raises UserError if it is missing, damaged or readable by others."""
    raw = read_private(path, _WHAT)
    try:
        record = json.loads(raw)
        if not isinstance(record, dict) or type(record.get("format")) is not int:
            raise ValueError("not a node file")
    except (ValueError, RecursionError):
        raise UserError(f"{path}: not a {_WHAT}; carry the one that `fedsieve enroll` wrote here again") from None
    if record.pop("format") > FORMAT:
        raise UserError(f"{path}: a {_WHAT} of a newer version; install that version of fedsieve here")
    if not _is_whole(record):
        raise UserError(f"{path}: damaged {_WHAT}; carry the one that `fedsieve enroll` wrote here again")
    return NodeFile(**record)


def parse_verify_key(text: str) -> Ed25519PublicKey:
    """Return the key in base64 text. Raises ValueError."""
    return Ed25519PublicKey.from_public_bytes(base64.b64decode(text, validate=True))


def _is_whole(record: dict[str, object]) -> bool:
    texts = {key: value for key, value in record.items() if isinstance(value, str) and value}
    wanted = {field.name for field in fields(NodeFile)}
    if set(record) != wanted or not wanted - set(texts) <= ({"model"} if record["model"] is None else set()):
        return False
    try:
        key = load_ssh_private_key(texts["private_key"].encode(), None)
        x509.load_pem_x509_certificate(texts["authority"].encode())
        parse_verify_key(texts["verify_key"])
        root = bytes.fromhex(texts.get("model", "00" * 32))
    except (ValueError, TypeError, binascii.Error, UnsupportedAlgorithm):
        return False
    return isinstance(key, EllipticCurvePrivateKey) and isinstance(key.curve, SECP384R1) and len(root) == 32
