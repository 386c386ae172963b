"""A node's state from the command line: predictions with its personal model, its export, its vault, a change of key."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from client.state import ClientState
from client.vault.keys import ENVIRONMENT_KEY
from deployment.join.layout import is_state
from deployment.join.places import Places, remembered_vault
from deployment.join.vault_choice import VaultChoice, open_state
from personalization.device.manifest import DeviceManifest, Precision
from personalization.errors import UserError
from personalization.wire.codes import ClientError

if TYPE_CHECKING:
    from personalization.model_files.source_model import SourceModel
    from personalization.prediction.continuation import Generation


def open_stored(
    folder: Path, choice: VaultChoice | None, environment: Mapping[str, str]
) -> tuple[ClientState, VaultChoice]:
    """Return a state that exists, and what opened it: what was chosen, or what it was last joined with.

    Raises UserError.
    """
    if not is_state(folder):
        raise UserError(f"{folder}: not the state of a node; expected the folder that `fedsieve join` names as state")
    known = choice or remembered_vault(folder, Places.of(environment))
    if known is None:
        known = VaultChoice(source="environment" if environment.get(ENVIRONMENT_KEY) else "none")
    return open_state(folder, known, environment), known


def model_of_state(folder: Path, choice: VaultChoice | None, environment: Mapping[str, str]) -> "SourceModel":
    """Return the newest personal model in a state that is whole.

    Needs no lock: a client may be at work on the next one. Raises UserError.
    """
    from client.model import load_model
    from personalization.model_files.source_model import SourceModel

    state, _ = open_stored(folder, choice, environment)
    return SourceModel.personal(load_model(state), str(folder))


def predict_from_state(
    folder: Path, images: Sequence[Path], choice: VaultChoice | None, environment: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Return file, class and probability for each image, by the model of `model_of_state`. Raises UserError."""
    from personalization.prediction.image_prediction import predict_images

    return predict_images(model_of_state(folder, choice, environment), images)


def predict_text_from_state(
    folder: Path,
    *,
    prompt: str | None,
    files: Sequence[Path],
    settings: "Generation",
    choice: VaultChoice | None,
    environment: Mapping[str, str],
) -> dict[str, Any]:
    """Return how the model of `model_of_state` goes on from `prompt`, and scores each of `files`. Raises UserError."""
    from personalization.prediction.generation import predict_text

    source = model_of_state(folder, choice, environment)
    return predict_text(source, prompt=prompt, files=files, settings=settings)


def export_from_state(
    folder: Path,
    data: Path,
    out: Path,
    *,
    precision: Precision,
    choice: VaultChoice | None,
    environment: Mapping[str, str],
) -> DeviceManifest:
    """Export the model of `model_of_state`, checked on the images or the text in `data`, to `out`.

    What is exported is not encrypted. Raises UserError.
    """
    from personalization.export.export_model import export_source

    return export_source(model_of_state(folder, choice, environment), data, out, precision=precision)


def describe_vault(folder: Path, choice: VaultChoice | None, environment: Mapping[str, str]) -> dict[str, Any]:
    """Return what is known of a state's vault, without secrets: what `--json` prints. Raises UserError."""
    state, known = open_stored(folder, choice, environment)
    vault = state.vault
    access = known.access(environment)
    return {
        "state": str(folder),
        "encrypted": vault is not None,
        "key": known.describe(),
        "counter": None if access is None or access.counter is None else str(access.counter),
        "generation": 0 if vault is None else vault.generation,
        "entries": [] if vault is None else vault.names(),
        "plans": state.versions("model"),
    }


def change_key(folder: Path, choice: VaultChoice | None, environment: Mapping[str, str]) -> None:
    """Encrypt everything in a state with a new key. Raises UserError, also if a client is at work; OSError."""
    state, _ = open_stored(folder, choice, environment)
    try:
        state.change_key()
    except ClientError as error:
        raise UserError(str(error)) from error
