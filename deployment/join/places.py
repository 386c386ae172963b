"""Where a node's things are kept on a device, and which settings a state folder was last joined with.

The settings lie beside the key, outside the state folder: whoever can write to the state folder must not be able to
say which key opens it.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from client.node_file import NodeFile
from deployment.join.vault_choice import VaultChoice
from personalization.errors import UserError
from personalization.system.files import write_atomically

_APP = "fedsieve"


@dataclass(frozen=True, kw_only=True)
class Places:
    """The user's folders (XDG base directories): `config` for keys and settings, `data` for states, `cache`."""

    config: Path
    data: Path
    cache: Path

    @staticmethod
    def of(environment: Mapping[str, str]) -> "Places":
        """Return the folders for an environment; relative paths in it are ignored, as the XDG specification says."""
        home = Path(environment.get("HOME") or Path.home())
        return Places(
            config=_absolute(environment.get("XDG_CONFIG_HOME")) or home / ".config",
            data=_absolute(environment.get("XDG_DATA_HOME")) or home / ".local" / "share",
            cache=_absolute(environment.get("XDG_CACHE_HOME")) or home / ".cache",
        )

    def state(self, node: NodeFile) -> Path:
        """Return the default state folder of a node."""
        return self.data / _APP / node.fleet / node.name

    def flower(self, node: NodeFile) -> Path:
        """Return where Flower keeps the programs of runs: not in the state, whose files nobody is to be able to run."""
        return self.cache / _APP / node.fleet / node.name

    def key_file(self, node: NodeFile) -> Path:
        """Return the default key file of a node."""
        return self.config / _APP / node.fleet / f"{node.name}.key"

    def settings_files(self) -> list[Path]:
        """Return the files of all nodes that this user joined, sorted."""
        return sorted((self.config / _APP).glob("*/*.join.json"))

    def settings_file(self, node: NodeFile) -> Path:
        """Return the file with the settings of a node's last join."""
        return self.config / _APP / node.fleet / f"{node.name}.join.json"


@dataclass(frozen=True, kw_only=True)
class Remembered:
    """What a state folder was last joined with; no secret."""

    state: str
    vault: VaultChoice

    def save(self, path: Path) -> None:
        """Write it, atomically. Raises OSError."""
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomically(path, json.dumps(asdict(self), indent=1).encode())


def remembered_vault(state: Path, places: Places) -> VaultChoice | None:
    """Return what kept the key of a state folder at its last join, None if this user never joined with it."""
    wanted = str(state.resolve())
    for path in places.settings_files():
        try:
            record = json.loads(path.read_bytes())
            if record["state"] == wanted:
                return VaultChoice(**record["vault"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError, UserError):
            continue  # it is written anew by the node's next join
    return None


def _absolute(text: str | None) -> Path | None:
    path = Path(text) if text else None
    return path if path is not None and path.is_absolute() else None
