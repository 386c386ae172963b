"""Where a vault's key comes from: a file that only its owner can read, the environment, or the system's keyring."""

import contextlib
import importlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from client.vault.sealing import VaultKey
from personalization.errors import UserError
from personalization.system.extras import install
from personalization.system.files import write_atomically

ENVIRONMENT_KEY = "FEDSIEVE_VAULT_KEY"
ENVIRONMENT_OLD_KEY = "FEDSIEVE_VAULT_KEY_OLD"
_SERVICE = "fedsieve"


class KeySource(Protocol):
    """Holds the keys that may open a vault, and a second one while the key is being changed."""

    name: str
    """What a message calls it."""

    def ring(self) -> tuple[VaultKey, ...]:
        """Return the key in use and after it any that a change of keys left. Raises UserError without a usable key."""

    def stage(self) -> VaultKey:
        """Keep a new key beside the one in use and return it. Raises UserError where that is not possible."""

    def promote(self) -> None:
        """Make the staged key the one in use; the old one is gone. Does nothing if none is staged."""


class KeyFile:
    """A file of mode 600 with 64 hexadecimal digits; while the key changes, the new one is beside it (`.next`)."""

    def __init__(self, path: Path) -> None:
        """Take the path; it is read when the key is asked for."""
        self.path = path
        self.name = str(path)
        self._next = path.with_name(path.name + ".next")

    def ring(self) -> tuple[VaultKey, ...]:
        """Return the keys. Raises UserError for a file that is missing, readable by others or holds no key."""
        try:
            first = _read_key(self.path)
        except FileNotFoundError:
            raise UserError(
                f"{self.path}: the vault's key is missing; put it back from your copy, or, if it is lost, "
                "make a new key and remove the vault folder: the server sends what is needed again"
            ) from None
        with contextlib.suppress(FileNotFoundError):
            return first, _read_key(self._next)
        return (first,)

    def stage(self) -> VaultKey:
        """Write a new key beside the file. Raises UserError if that fails."""
        key = VaultKey.generate()
        _write_key(self._next, key)
        return key

    def promote(self) -> None:
        """Put the new key in the place of the old one. Raises OSError."""
        with contextlib.suppress(FileNotFoundError):
            os.replace(self._next, self.path)


class EnvironmentKey:
    """A key in the environment; while it changes, the new key in one variable and the old one in another."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        """Take the environment that holds the variables."""
        self.name = f"the environment variable {ENVIRONMENT_KEY}"
        self._environment = environment

    def ring(self) -> tuple[VaultKey, ...]:
        """Return the keys. Raises UserError for texts that are no keys."""
        names = [name for name in (ENVIRONMENT_KEY, ENVIRONMENT_OLD_KEY) if self._environment.get(name)]
        return tuple(VaultKey.from_text(self._environment[name], name) for name in names)

    def stage(self) -> VaultKey:
        """Return the new key, which whoever set the variables chose. Raises UserError if there is one key only."""
        if not self._environment.get(ENVIRONMENT_OLD_KEY):
            raise UserError(
                f"to change the key, set {ENVIRONMENT_KEY} to the new one and {ENVIRONMENT_OLD_KEY} to the old"
            )
        return self.ring()[0]

    def promote(self) -> None:
        """Do nothing: the new key is in its place from the start."""


class KeyringKey:
    """A key in the operating system's keyring (service `fedsieve`), through the optional package `keyring`."""

    def __init__(self, entry: str) -> None:
        """Take the entry's user name. Raises UserError if the package is not installed."""
        self.name = f"the keyring's entry {_SERVICE}/{entry}"
        self._entry, self._next = entry, f"{entry}.next"
        try:
            self._keyring: Any = importlib.import_module("keyring")
        except ImportError:
            raise UserError(
                f"vault-keyring needs the package keyring: {install('keyring')}, or use vault-key-file"
            ) from None

    def ring(self) -> tuple[VaultKey, ...]:
        """Return the keys. Raises UserError if the keyring is locked, has no such entry or holds no key there."""
        texts = [self._get(self._entry), self._get(self._next)]
        if texts[0] is None:
            raise UserError(f"{self.name} does not exist; add it: keyring set {_SERVICE} {self._entry}")
        return tuple(VaultKey.from_text(text, self.name) for text in texts if text is not None)

    def stage(self) -> VaultKey:
        """Put a new key into an entry of its own. Raises UserError if the keyring refuses."""
        key = VaultKey.generate()
        self._call("set_password", self._next, key.to_text())
        return key

    def promote(self) -> None:
        """Put the new key in the place of the old one."""
        text = self._get(self._next)
        if text is not None:
            self._call("set_password", self._entry, text)
            self._call("delete_password", self._next)

    def _get(self, entry: str) -> str | None:
        text: str | None = self._call("get_password", entry)
        return text

    def _call(self, verb: str, *arguments: str) -> Any:
        try:
            return getattr(self._keyring, verb)(_SERVICE, *arguments)
        except self._keyring.errors.KeyringError as error:
            raise UserError(f"{self.name} cannot be used: {' '.join(str(error).split())}; unlock the keyring") from None


def create_key_file(path: Path) -> None:
    """Write a new random key to a new file of mode 600. Raises UserError if there is a file or none can be written."""
    if path.exists():
        raise UserError(f"{path}: exists already; a key is never overwritten, since what it locks would be lost")
    _write_key(path, VaultKey.generate())


def _write_key(path: Path, key: VaultKey) -> None:
    try:
        write_atomically(path, key.to_text().encode() + b"\n")
    except OSError as error:
        raise UserError(f"{path}: the key was not written ({error.strerror or error})") from None


def _read_key(path: Path) -> VaultKey:
    """Return the key in a file. Raises FileNotFoundError, and UserError for a file that others could read or change."""
    try:
        with path.open("rb") as file:
            facts = os.fstat(file.fileno())
            text = file.read(4096)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UserError(f"{path}: the vault's key cannot be read ({error.strerror or error})") from None
    if stat.S_IMODE(facts.st_mode) & 0o077:
        raise UserError(f"{path}: others can read the vault's key; expected mode 600, do: chmod 600 {path}")
    if facts.st_uid not in (0, os.geteuid()):
        raise UserError(f"{path}: the vault's key belongs to another user; it must belong to the one who runs the node")
    return VaultKey.from_text(text.decode("ascii", errors="replace"), str(path))
