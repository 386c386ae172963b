"""Who a device is in secure sums: its node key, the certificate over it, and whose certificates it believes."""

import base64
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_ssh_private_key

from client.data import Config
from client.node_file import parse_verify_key, read_node_file
from personalization.errors import UserError
from personalization.wire.codes import ClientError, ClientFailure


@dataclass(frozen=True)
class Identity:
    """key: P-384. certificate: of the authority that enrols, over fleet and key. authority: its public key."""

    fleet: str
    key: EllipticCurvePrivateKey
    certificate: bytes
    authority: Ed25519PublicKey


def read_identity(node_config: Config) -> Identity:
    """Return the identity in the node's `node-file`. Raises ClientError (sum refused) if there is none."""
    try:
        if not node_config.get("node-file"):
            raise UserError("node-file is not set, and secure sums need what is in it")
        own = read_node_file(Path(str(node_config["node-file"])))
    except UserError as error:
        raise ClientError(ClientFailure.SUM_REFUSED, str(error)) from error
    key = load_ssh_private_key(own.private_key.encode(), None)
    assert isinstance(key, EllipticCurvePrivateKey)
    return Identity(own.fleet, key, base64.b64decode(own.certificate), parse_verify_key(own.enrolment_key))
