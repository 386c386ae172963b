"""Who simulated clients are in secure sums: an authority and node keys that follow from one secret of the run."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, derive_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from client.data import Config
from client.identity import Identity
from personalization.system.files import write_atomically
from server.enrolment_file import EnrolmentFile
from strategies.secure_aggregation.entropy import Entropy, system_entropy
from strategies.secure_aggregation.identity import certify

ENROLMENT = "enrolment.json"
_SECRET_BYTES = 32


@dataclass(frozen=True)
class SimulatedIdentities:
    """Identities by `partition-id`. secret [32 bytes]: never written; it can travel to Ray's workers."""

    secret: bytes = field(repr=False)

    @staticmethod
    def new(entropy: Entropy = system_entropy) -> "SimulatedIdentities":
        """Return those of a new fleet: no seed decides them, as no seed of a run decides any key."""
        return SimulatedIdentities(entropy(_SECRET_BYTES))

    def __call__(self, node_config: Config) -> Identity:
        """Return who the client `partition-id` is."""
        number = int.from_bytes(self._derived(f"node {node_config['partition-id']}"), "little")
        key = derive_private_key(1 + number, SECP384R1())
        authority = self._authority()
        certificate = certify(authority, self._fleet(), key.public_key())
        return Identity(self._fleet(), key, certificate, authority.public_key())

    def write(self, out: Path) -> Path:
        """Write the public enrolment file of this fleet into the folder of a run; return its path. Raises OSError."""
        out.mkdir(parents=True, exist_ok=True)
        write_atomically(out / ENROLMENT, EnrolmentFile(self._fleet(), self._authority().public_key()).to_json())
        return (out / ENROLMENT).absolute()

    def _authority(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(self._derived("authority"))

    def _fleet(self) -> str:
        return self._derived("fleet")[:8].hex()

    def _derived(self, what: str) -> bytes:
        return hashlib.sha256(self.secret + what.encode()).digest()
