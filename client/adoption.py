"""A device that gets a key after it has worked without one: what lies there in the open goes into the vault."""

import contextlib
from pathlib import Path

from client.entries import (
    BACKBONE,
    KEYRING,
    LEDGER,
    MODEL,
    PARTICIPATION,
    RECORD,
    SAMPLES,
    VERSION,
    model_entries,
)
from client.vault.vault import Vault
from personalization.errors import UserError
from personalization.model_files.storage import PackedPersonalModel, read_manifest, unpack_personal_model


def adopt_plain_files(folder: Path, vault: Vault) -> None:
    """Take the plain files of a state into its vault, in one change, and remove them.

    Only a vault that was never written takes anything: later, files in the open are not ours, and are just removed.
    What flash memory keeps of removed files is out of reach. Raises OSError, UserError.
    """
    single = [folder / name for name in (BACKBONE, RECORD, VERSION, KEYRING, PARTICIPATION, LEDGER)]
    files = [*single, *(folder / SAMPLES).glob("*.npz")]
    names = {str(path.relative_to(folder)): path for path in files if path.is_file()}
    weights = [*(folder / MODEL).glob("*")]
    if not names and not weights:
        return
    if vault.generation == 0:
        changes: dict[str, bytes | None] = {name: path.read_bytes() for name, path in names.items()}
        with contextlib.suppress(UserError):  # a model that cannot be read is made again by the next plan
            changes.update(_entries_of_folder(folder / MODEL))
        vault.change(changes)
    for path in (*names.values(), *weights):
        path.unlink(missing_ok=True)
    for name in (SAMPLES, MODEL):
        with contextlib.suppress(OSError):
            (folder / name).rmdir()


def _entries_of_folder(folder: Path) -> dict[str, bytes]:
    """Return the entries that keep the model of a folder in a vault. Raises UserError for one that is not as saved."""
    manifest = read_manifest(folder)
    try:
        packed = PackedPersonalModel(manifest, (folder / manifest.weights_file).read_bytes())
    except OSError as error:
        raise UserError(f"{folder}: the weights cannot be read ({error.strerror or error})") from None
    unpack_personal_model(packed)
    return model_entries(int(manifest.extra.get("plan", 0)), packed)
