"""What opens a vault on this device: its key, and the counter by which an old copy of the whole vault is told."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from client.vault.keys import ENVIRONMENT_KEY, EnvironmentKey, KeyFile, KeyringKey, KeySource
from personalization.errors import UserError
from personalization.system.files import write_atomically


@dataclass(frozen=True)
class VaultAccess:
    """Where the key comes from and where the counter is kept; without a counter, an old vault cannot be told."""

    keys: KeySource
    counter: Path | None

    def read_counter(self) -> bytes | None:
        """Return the sealed counter, None if there is none (yet). Raises UserError if it cannot be read."""
        if self.counter is None:
            return None
        try:
            return self.counter.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UserError(f"{self.counter}: the vault's counter cannot be read ({error.strerror or error})") from None

    def write_counter(self, sealed: bytes) -> None:
        """Replace the counter. Raises UserError if it cannot be written."""
        if self.counter is None:
            return
        try:
            write_atomically(self.counter, sealed)
        except OSError as error:
            raise UserError(
                f"{self.counter}: the vault's counter cannot be written ({error.strerror or error}); "
                "set vault-counter-file to a path outside the state-dir that the node may write"
            ) from None


def find_access(node_config: Mapping[str, object], environment: Mapping[str, str]) -> VaultAccess | None:
    """Return what opens a node's vault, None if no key is configured.

    `vault-key-file`, then `vault-keyring` of the node configuration, then FEDSIEVE_VAULT_KEY of the environment; the
    first that is set counts. The counter is the file `vault-counter-file`, by default `<key file>.counter`.
    Raises UserError if the keyring is asked for and not installed.
    """
    chosen = node_config.get("vault-counter-file")
    counter = Path(str(chosen)) if chosen else None
    if node_config.get("vault-key-file"):
        path = Path(str(node_config["vault-key-file"]))
        return VaultAccess(KeyFile(path), counter or path.with_name(path.name + ".counter"))
    if node_config.get("vault-keyring"):
        return VaultAccess(KeyringKey(str(node_config["vault-keyring"])), counter)
    if environment.get(ENVIRONMENT_KEY):
        return VaultAccess(EnvironmentKey(environment), counter)
    return None
