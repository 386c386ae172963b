"""The one file that is carried to a device: who it is, where its server is, and whom it trusts."""

import base64
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_ssh_private_key

from personalization.errors import UserError
from personalization.system.private_files import read_private

FORMAT = 2
# A node whose configuration sets this gives its vector to secure sums alone.
SUMS_ONLY = "secure-sums-only"
# Fewest devices of a sum that it takes part in, itself among them.
SMALLEST = "smallest-cohort"
# What a node whose configuration sets this gives away in its whole life, as epsilon.
EPSILON_BUDGET = "epsilon-budget"
_WHAT = "node file"


@dataclass(frozen=True, kw_only=True)
class NodeFile:
    """What one device is enrolled with.

    fleet: id of its fleet. name: what its operator calls it. node: its id, from its key. server: host:port.
    private_key: P-384 in OpenSSH form, with which it signs on at the server. authority: certificate (PEM) of the
    authority that signed the server's. verify_key: Ed25519 public key (base64) that plans are checked with. model: root
    hash (hexadecimal) of the only backbone that it takes; None takes any that the server signs. certificate: by which
    other devices know this one in secure sums (base64, see strategies/secure_aggregation/identity.py). enrolment_key:
    Ed25519 public key (base64) that they are checked with.
    """

    fleet: str
    name: str
    node: str
    server: str
    private_key: str
    authority: str
    verify_key: str
    model: str | None
    certificate: str
    enrolment_key: str

    def to_json(self) -> bytes:
        """Return the contents of the file: a secret, to be written with mode 600."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=1).encode()


def read_node_file(path: Path) -> NodeFile:
    """Return what a node file of mode 600 holds.

    Raises UserError if it is missing, damaged, readable by others, or of a version that knew no secure sums.
    """
    own = read_any_node_file(path)
    if not own.certificate:
        raise UserError(
            f"{path}: a {_WHAT} of an earlier fedsieve, without the certificate that secure sums need; where the fleet "
            f"was enrolled, with this file in its folder: fedsieve enroll FLEET --renew {own.name}, and carry it again"
        )
    return own


def read_any_node_file(path: Path) -> NodeFile:
    """Return the same, also for a file of the version before, whose certificate and enrolment key are empty."""
    raw = read_private(path, _WHAT)
    try:
        record = json.loads(raw)
        if not isinstance(record, dict) or type(record.get("format")) is not int:
            raise ValueError("not a node file")
    except (ValueError, RecursionError):
        raise UserError(f"{path}: not a {_WHAT}; carry the one that `fedsieve enroll` wrote here again") from None
    version = record.pop("format")
    if version > FORMAT:
        raise UserError(f"{path}: a {_WHAT} of a newer version; install that version of fedsieve here")
    later = {"certificate", "enrolment_key"} if version < FORMAT else set()
    record |= dict.fromkeys(later, "")
    if not _is_whole(record, empty=later):
        raise UserError(f"{path}: damaged {_WHAT}; carry the one that `fedsieve enroll` wrote here again")
    return NodeFile(**record)


def parse_verify_key(text: str) -> Ed25519PublicKey:
    """Return the key in base64 text. Raises ValueError."""
    return Ed25519PublicKey.from_public_bytes(base64.b64decode(text, validate=True))


def _is_whole(record: dict[str, object], *, empty: set[str]) -> bool:
    texts = {key: value for key, value in record.items() if isinstance(value, str) and value}
    wanted = {field.name for field in fields(NodeFile)}
    if set(record) != wanted or wanted - set(texts) != empty | ({"model"} if record["model"] is None else set()):
        return False
    try:
        key = load_ssh_private_key(texts["private_key"].encode(), None)
        x509.load_pem_x509_certificate(texts["authority"].encode())
        parse_verify_key(texts["verify_key"])
        if not empty:
            parse_verify_key(texts["enrolment_key"])
            base64.b64decode(texts["certificate"], validate=True)
        root = bytes.fromhex(texts.get("model", "00" * 32))
    # NotImplementedError: a point in a form that cryptography does not read.
    except (ValueError, TypeError, UnsupportedAlgorithm, NotImplementedError, x509.InvalidVersion):
        return False
    return isinstance(key, EllipticCurvePrivateKey) and isinstance(key.curve, SECP384R1) and len(root) == 32
