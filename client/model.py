"""The personal model in a device's state: a folder as `model_files.storage` keeps it, or entries of the vault."""

from client.entries import MODEL, model_entries
from client.state import ClientState, report
from client.vault.vault import DamagedEntryError
from personalization.errors import UserError
from personalization.model_files.manifest import Manifest
from personalization.model_files.storage import (
    MANIFEST_FILE,
    LoadedPersonalModel,
    PackedPersonalModel,
    load_personal_model,
    unpack_personal_model,
    write_personal_model,
)

# The newest, and the one before it, which goes on serving if the newest is found damaged.
_KEPT_MODELS = 2


def keep_model(state: ClientState, version: int, packed: PackedPersonalModel) -> None:
    """Keep the personal model of a plan; it replaces what was kept for that version or a later one before.

    The model kept last stays valid until this one is complete. Raises OSError, UserError, ClientError.
    """
    if state.vault is None:
        write_personal_model(state.path(MODEL), packed)
        return
    kept = [v for v in state.versions(MODEL) if v < version][-(_KEPT_MODELS - 1) :]
    prefixes = tuple(f"{MODEL}/{v}/" for v in kept)
    old = [name for name in state.vault.names() if name.startswith(f"{MODEL}/") and not name.startswith(prefixes)]
    state.change({**dict.fromkeys(old), **model_entries(version, packed)})


def load_model(state: ClientState) -> LoadedPersonalModel:
    """Return the personal model of the newest plan; one that is damaged is reported, and the one before it returned.

    Without a key there is no one before. Raises UserError if there is no model (left), ClientError if the vault does
    not open. Needs no lock: a client may be working on a new model meanwhile.
    """
    if state.vault is None:
        return load_personal_model(state.path(MODEL))
    for version in reversed(state.versions(MODEL)):
        try:
            text = state.vault.read(f"{MODEL}/{version}/{MANIFEST_FILE}").decode()
            manifest = Manifest.from_json(text, MANIFEST_FILE)
            weights = state.vault.read(f"{MODEL}/{version}/{manifest.weights_file}")
            return unpack_personal_model(PackedPersonalModel(manifest, weights))
        except (FileNotFoundError, DamagedEntryError, UserError) as error:
            report(f"the personal model of plan {version} is damaged, an earlier one is looked for: {error}")
    raise UserError(f"{state.folder}: no personal model here; the next plan that this device takes part in makes one")
