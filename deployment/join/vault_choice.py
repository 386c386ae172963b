"""Which key encrypts a node's state, as chosen on a command line, and the state that it opens."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from client.entries import VAULT
from client.state import ClientState
from client.vault.access import VaultAccess, find_access
from client.vault.keys import ENVIRONMENT_KEY, create_key_file
from personalization.errors import UserError
from personalization.wire.codes import ClientError

Source = Literal["file", "keyring", "environment", "none"]


@dataclass(frozen=True, kw_only=True)
class VaultChoice:
    """Where the key is. name: path of the key file, or the keyring's entry; empty for the other two."""

    source: Source
    name: str = ""

    def __post_init__(self) -> None:
        """Refuse what makes no sense. Raises UserError."""
        if (self.source in ("file", "keyring")) != bool(self.name):
            raise UserError(
                f"vault key from {self.source!r} with name {self.name!r}: expected a name for file, keyring"
            )

    def node_config(self) -> dict[str, str]:
        """Return what the ClientApp's node configuration needs to find the key."""
        match self.source:
            case "file":
                return {"vault-key-file": self.name}
            case "keyring":
                return {"vault-keyring": self.name}
            case _:
                return {}

    def environment(self, own: Mapping[str, str]) -> dict[str, str]:
        """Return the environment with which this choice is the one that counts. Raises UserError without the key."""
        if self.source == "environment" and not own.get(ENVIRONMENT_KEY):
            raise UserError(f"{ENVIRONMENT_KEY} is not set; set it to the vault's key, 64 hexadecimal digits")
        return {k: v for k, v in own.items() if self.source == "environment" or not k.startswith(ENVIRONMENT_KEY)}

    def access(self, environment: Mapping[str, str]) -> VaultAccess | None:
        """Return what opens the vault, None if there is to be none. Raises UserError."""
        return find_access(self.node_config(), self.environment(environment))

    def describe(self) -> str:
        """Return what a log line calls it."""
        if self.source == "none":
            return "not encrypted"
        where = {"file": "key file ", "keyring": "the keyring's entry fedsieve/", "environment": ENVIRONMENT_KEY}
        return f"encrypted, key in {where[self.source]}{self.name}"


def choose_vault(
    *, key_file: Path | None, keyring: str | None, environment: bool, none: bool = False
) -> VaultChoice | None:
    """Return what the options say, None if they say nothing. Raises UserError if they say two things."""
    given = [
        *([VaultChoice(source="file", name=str(key_file.absolute()))] if key_file is not None else []),
        *([VaultChoice(source="keyring", name=keyring)] if keyring is not None else []),
        *([VaultChoice(source="environment")] if environment else []),
        *([VaultChoice(source="none")] if none else []),
    ]
    if len(given) > 1:
        raise UserError("more than one of --vault-key-file, --vault-keyring, --vault-env, --no-vault; choose one")
    return given[0] if given else None


def open_state(folder: Path, choice: VaultChoice, environment: Mapping[str, str]) -> ClientState:
    """Return the state in a folder, once its vault has opened. Raises UserError if it does not, or there is no key."""
    if choice.source == "file" and Path(choice.name).resolve().is_relative_to(folder.resolve()):
        raise UserError(
            f"{choice.name}: inside the state folder {folder}, where it protects nothing; keep it elsewhere"
        )
    if choice.source == "none" and (folder / VAULT).is_dir():
        raise UserError(
            f"{folder}: encrypted, but no key was given; name it with --vault-key-file, --vault-keyring or "
            f"--vault-env, or remove {folder / VAULT} to begin anew: the server sends what is needed again"
        )
    state = ClientState(folder, access=choice.access(environment))
    try:
        _ = state.vault
    except ClientError as error:
        raise UserError(str(error)) from error
    return state


def make_missing_key(folder: Path, choice: VaultChoice) -> bool:
    """Make the key file of a node that never had a vault; True if it was made. Raises UserError, OSError.

    Where there is a vault, or its counter, a key that is missing was lost: a new one would open nothing.
    """
    if choice.source != "file" or Path(choice.name).exists() or (folder / VAULT).exists():
        return False
    path = Path(choice.name)
    if path.with_name(f"{path.name}.counter").exists():
        raise UserError(
            f"{path}: the vault's key is missing, but its counter is there; put the key back from your copy, or, if it "
            f"is lost, remove {path}.counter: the server sends what is needed again"
        )
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    create_key_file(path)
    return True
