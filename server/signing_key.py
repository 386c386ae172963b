"""The key that a fleet's server signs its plans with, and the file that it lives in."""

import base64
import json
import time
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from personalization.errors import UserError
from personalization.system.files import write_atomically
from personalization.system.private_files import read_private

FORMAT = 1
_WHAT = "plan-signing key"


@dataclass(frozen=True)
class SigningKey:
    """An Ed25519 key and the id of the fleet that it signs for."""

    fleet: str
    private_key: Ed25519PrivateKey

    @property
    def verify_key(self) -> str:
        """What devices check signatures with: the 32 bytes of the public key in base64."""
        return base64.b64encode(self.private_key.public_key().public_bytes_raw()).decode()

    def to_json(self) -> bytes:
        """Return the contents of the key's file: a secret, to be written with mode 600."""
        secret = base64.b64encode(self.private_key.private_bytes_raw()).decode()
        return json.dumps({"format": FORMAT, "fleet": self.fleet, "private_key": secret}, indent=1).encode()


def read_signing_key(path: Path) -> SigningKey:
    """Return the key in a file of mode 600. Raises UserError if it is missing, damaged or readable by others."""
    raw = read_private(path, _WHAT)
    try:
        record = json.loads(raw)
        if record["format"] != FORMAT or not isinstance(record["fleet"], str) or not record["fleet"]:
            raise ValueError("not a key file of this format")
        secret = base64.b64decode(record["private_key"], validate=True)
        return SigningKey(record["fleet"], Ed25519PrivateKey.from_private_bytes(secret))
    except (ValueError, KeyError, TypeError, RecursionError):
        raise UserError(f"{path}: not a {_WHAT} as `fedsieve enroll` writes it; restore it from a backup") from None


def next_series(key_file: Path) -> int:
    """Return the number of a new run and note it beside the key: it rises from run to run of a fleet.

    It is the clock in milliseconds, or one more than the last number where a clock was set back. So neither a
    clock set back nor a note that was lost makes devices take a new run for an old one. Raises OSError.
    """
    note = key_file.with_suffix(".series")
    try:
        last = int(note.read_text())
    except (FileNotFoundError, ValueError):
        last = 0
    series = max(last + 1, time.time_ns() // 1_000_000)
    write_atomically(note, str(series).encode())
    return series
