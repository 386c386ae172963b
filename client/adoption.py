"""A device that gets a key after it has worked without one: what lies there in the open goes into the vault."""

import contextlib
from pathlib import Path

from client.backbone import CACHE
from client.model import model_entries
from client.state import KEYRING, LEDGER, MODEL, PARTICIPATION, RECORD, SAMPLES, VERSION
from client.vault.vault import Vault
from personalization.errors import UserError


def adopt_plain_files(folder: Path, vault: Vault) -> None:
    """Take the plain files of a state into its vault, in one change, and remove them.

    Only a vault that was never written takes anything: later, files in the open are not ours, and are just removed.
    What flash memory keeps of removed files is out of reach. Raises OSError, UserError.
    """
    single = [folder / name for name in (CACHE, RECORD, VERSION, KEYRING, PARTICIPATION, LEDGER)]
    files = [*single, *(folder / SAMPLES).glob("*.npz")]
    names = {str(path.relative_to(folder)): path for path in files if path.is_file()}
    weights = [*(folder / MODEL).glob("*")]
    if not names and not weights:
        return
    if vault.generation == 0:
        changes: dict[str, bytes | None] = {name: path.read_bytes() for name, path in names.items()}
        with contextlib.suppress(UserError):  # a model that cannot be read is made again by the next plan
            changes.update(model_entries(folder / MODEL))
        vault.change(changes)
    for path in (*names.values(), *weights):
        path.unlink(missing_ok=True)
    for name in (SAMPLES, MODEL):
        with contextlib.suppress(OSError):
            (folder / name).rmdir()
