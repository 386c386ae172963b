"""What a device's state consists of: names of its files without a key, or of the vault's entries with one."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # who only reads a state needs no torch
    from personalization.model_files.storage import PackedPersonalModel

RECORD, MODEL, SAMPLES, VAULT, VERSION = "record.json", "model", "samples", "vault", "version.json"
# Cached generic layers.
BACKBONE = "backbone.safetensors"
WINDOWS = "windows.npz"
KEYRING, PARTICIPATION = "keyring", "participation"
# What answers have cost in privacy, see client.privacy.
LEDGER = "ledger.json"


def model_entries(version: int, packed: "PackedPersonalModel") -> dict[str, bytes]:
    """Return the entries that keep the personal model of a plan in a vault."""
    return {f"{MODEL}/{version}/{name}": data for name, data in packed.files().items()}
