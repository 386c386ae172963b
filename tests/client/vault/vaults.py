"""A vault in a temporary folder, with a key file and a counter beside it."""

import shutil
from pathlib import Path

from client.vault.access import VaultAccess, find_access
from client.vault.keys import create_key_file
from client.vault.lock import StateLock
from client.vault.vault import DamagedEntryError, Vault


class Place:
    """A state folder and a folder of keys; `lines` collects what vaults report."""

    def __init__(self, folder: Path) -> None:
        self.state, self.keys = folder / "state", folder / "keys"
        self.state.mkdir()
        self.keys.mkdir()
        self.key_file = self.keys / "key"
        create_key_file(self.key_file)
        self.vault_folder = self.state / "vault"
        self.lines: list[str] = []

    def access(self) -> VaultAccess:
        found = find_access({"vault-key-file": str(self.key_file)}, {})
        assert found is not None
        return found

    def open(self, access: VaultAccess | None = None) -> Vault:
        lock = StateLock(self.state)
        return Vault(self.vault_folder, access or self.access(), lock=lock, report=self.lines.append)

    def contents(self) -> dict[str, bytes]:
        """All entries that can be read, with a vault opened anew; a damaged one is only reported."""
        vault, found = self.open(), {}
        for name in vault.names():
            try:
                found[name] = vault.read(name)
            except DamagedEntryError as error:
                self.lines.append(str(error))
        return found

    def files(self) -> list[Path]:
        return sorted(path for path in self.vault_folder.iterdir() if path.is_file())

    def entry_file(self, name: str) -> Path:
        return self.vault_folder / self.open()._index.entries[name].file

    def copy(self, name: str) -> None:
        """Keep a copy of the state folder aside."""
        shutil.copytree(self.state, self.state.with_name(name))

    def put_back(self, name: str) -> None:
        shutil.rmtree(self.state)
        shutil.copytree(self.state.with_name(name), self.state)
