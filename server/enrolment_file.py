"""The file that tells a server, in public, who enrols its fleet's devices: their keys are checked with it."""

import base64
import json
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from personalization.errors import UserError

FORMAT = 1


@dataclass(frozen=True)
class EnrolmentFile:
    """fleet: its id. authority: public key of the authority that certifies the keys of its nodes. No secret."""

    fleet: str
    authority: Ed25519PublicKey

    @property
    def text(self) -> str:
        """The public key [32 bytes] in base64, as it stands in files."""
        return base64.b64encode(self.authority.public_bytes_raw()).decode()

    def to_json(self) -> bytes:
        """Return the contents of the file."""
        return json.dumps({"format": FORMAT, "fleet": self.fleet, "enrolment_key": self.text}, indent=1).encode()


def read_enrolment_file(path: Path) -> EnrolmentFile:
    """Return what the file says. Raises UserError if it is missing or damaged."""
    try:
        record = json.loads(path.read_bytes())
        if record["format"] != FORMAT or not isinstance(record["fleet"], str) or not record["fleet"]:
            raise ValueError("not an enrolment file of this format")
        key = Ed25519PublicKey.from_public_bytes(base64.b64decode(record["enrolment_key"], validate=True))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; `fedsieve enroll FLEET` writes it into the fleet's folder") from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise UserError(f"{path}: not an enrolment file as `fedsieve enroll` writes it; restore it") from None
    return EnrolmentFile(record["fleet"], key)
