"""A folder of sealed entries: a change holds whole or not at all, and what was done to the files is noticed.

Every entry is a file of its own that is never written twice. A change adds files, then replaces the index: that is
the one step that makes it hold. What the index does not name is no part of the vault and is removed by the next change.
"""

import contextlib
import hashlib
import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from client.vault.access import VaultAccess
from client.vault.index import (
    COPIES,
    Entry,
    Index,
    OpenedIndex,
    RawCopies,
    entry_name,
    open_copies,
    open_counter,
    read_copies,
    seal_counter,
    write_copies,
)
from client.vault.lock import StateLock
from client.vault.sealing import VAULT_ID_BYTES, SealError, UnknownFormatError, VaultKey, seal, unseal
from personalization.errors import UserError
from personalization.system.files import write_atomically

# An entry of the vault's own, in one that began anew after it was given up.
_BEGAN_ANEW = "began-anew"


class DamagedEntryError(Exception):
    """An entry whose file is missing, cut short, changed or an old one. Its text is one line that names the entry."""


class Vault:
    """The entries of one device; any process may read, one at a time may write."""

    _index: Index
    _key: VaultKey
    _began_anew: bool

    def __init__(self, folder: Path, access: VaultAccess, *, lock: StateLock, report: Callable[[str], None]) -> None:
        """Open the vault in `folder`, or an empty one if there is none; nothing is written yet.

        lock: held while something is written. report: called with one line for everything that was found damaged and
        given up. Raises UserError without a usable key and if the vault is another key's.
        """
        self.folder = folder
        self._access, self._lock, self._report = access, lock, report
        self._seen: tuple[bytes | None, RawCopies] | None = None
        self._load()

    @property
    def generation(self) -> int:
        """Number of changes so far; 0 for a vault that was never written."""
        return self._index.generation

    def names(self) -> list[str]:
        """Return the names of all entries, sorted."""
        return sorted(self._index.entries.keys() - {_BEGAN_ANEW})

    @property
    def began_anew(self) -> bool:
        """Whether entries were lost at any time because the whole vault was given up; it is never forgotten."""
        return self._began_anew

    def read(self, name: str) -> bytes:
        """Return an entry. Raises FileNotFoundError if there is none, DamagedEntryError if it is not as written."""
        raw = self._raw(name)
        entry = self._index.entries[name]
        if len(raw) != entry.size or hashlib.sha256(raw).hexdigest() != entry.sha256:
            raise DamagedEntryError(f"{name}: its file in {self.folder} is not the one that was written last")
        try:
            data, header = unseal(raw, keys=[self._key], name=entry_name(name))
        except SealError as error:
            raise DamagedEntryError(f"{name}: its file in {self.folder} is {error}") from None
        if (header.vault, header.generation) != (self._index.vault, entry.generation):
            raise DamagedEntryError(f"{name}: its file in {self.folder} is of another vault or generation")
        return data

    def change(self, changes: Mapping[str, bytes | None]) -> None:
        """Write entries, and remove those given as None: all of it holds afterwards, or none.

        Raises OSError (full disk) and UserError if another process is writing or the key is gone.
        """
        with self._lock:
            self._load()
            self._write(self._index.entries, changes.items(), self._key)

    def reseal(self) -> None:
        """Encrypt everything with a new key, which then is the vault's; entries that are damaged are given up.

        Killed at any moment, this leaves a vault that opens: the key source holds both keys until all is done.
        Raises OSError, UserError as `change` does and if the key source cannot hold a second key.
        """
        with self._lock:
            self._load()
            if self._index.generation:
                self._settle()  # a change of keys that was interrupted after it held must not lose its key now
            key = self._access.keys.stage()
            self._write({}, self._intact(), key)

    def _intact(self) -> Iterator[tuple[str, bytes]]:
        for name in self.names():
            try:
                yield name, self.read(name)
            except DamagedEntryError as error:
                self._report(f"{error}; it is given up")

    def _write(self, entries: Mapping[str, Entry], changes: Iterable[tuple[str, bytes | None]], key: VaultKey) -> None:
        left = dict(entries)
        try:
            self.folder.mkdir(mode=0o700, exist_ok=True)
            for name, data in changes:
                if data is None:
                    left.pop(name, None)
                else:
                    left[name] = self._add(name, data, key)
            if self._began_anew and _BEGAN_ANEW not in left:
                left[_BEGAN_ANEW] = self._add(_BEGAN_ANEW, b"", key)
            index = Index(self._index.vault, self._index.generation + 1, left)
            copies = write_copies(self.folder, index, key)
        except OSError:
            self._load()
            self._sweep()
            raise
        self._index, self._key = index, key
        self._settle()
        self._seen = self._access.read_counter(), copies
        self._sweep()

    def _add(self, name: str, data: bytes, key: VaultKey) -> Entry:
        generation = self._index.generation + 1
        raw = seal(data, key=key, vault=self._index.vault, name=entry_name(name), generation=generation)
        file = f"{secrets.token_hex(8)}.sealed"
        write_atomically(self.folder / file, raw)
        return Entry(file, len(raw), hashlib.sha256(raw).hexdigest(), generation)

    def _settle(self) -> None:
        """Say outside how far the vault is, and finish a change of keys. The index holds already: never before it."""
        self._access.write_counter(seal_counter(self._index, self._key))
        if self._key != self._access.keys.ring()[0]:
            self._access.keys.promote()

    def _sweep(self) -> None:
        """Remove what the index does not name; what cannot be removed is left to the next change."""
        named = {*COPIES, *(entry.file for entry in self._index.entries.values())}
        with contextlib.suppress(OSError):
            for found in os.scandir(self.folder):
                if found.name not in named:
                    Path(found.path).unlink()

    def _raw(self, name: str) -> bytes:
        for again in (True, False):
            if name not in self._index.entries:
                raise FileNotFoundError(f"{name}: not in the vault {self.folder}")
            try:
                return (self.folder / self._index.entries[name].file).read_bytes()
            except FileNotFoundError:
                if again:
                    self._load()  # a writer may have replaced the entry since the index was read
            except OSError as error:
                raise DamagedEntryError(
                    f"{name}: its file in {self.folder} cannot be read ({error.strerror})"
                ) from None
        raise DamagedEntryError(f"{name}: its file in {self.folder} is missing")

    def _load(self) -> None:
        """Read the index, if it is not the one read last. Raises UserError."""
        for again in (True, False):
            # The counter first: it must never be ahead of the index only because a writer came in between.
            counter, copies = self._access.read_counter(), self._read_copies()
            if self._seen == (counter, copies):
                return
            keys = self._access.keys.ring()
            opened = open_copies(copies, keys)
            if opened.foreign is None:
                break
            if not again:  # twice, since the key may have been changed between the reading of index and key
                raise UserError(self._foreign(opened.foreign))
        self._seen = counter, copies
        self._accept(opened, copies, counter, keys)

    def _accept(
        self, opened: OpenedIndex, copies: RawCopies, counter: bytes | None, keys: tuple[VaultKey, ...]
    ) -> None:
        vault, floor = self._counted(counter, keys)
        index = opened.index
        if index is not None and vault is not None and vault != index.vault:
            raise UserError(
                f"{self.folder}: the counter {self._access.counter} is another vault's; "
                "give each node a key of its own, or remove that counter if you trust this folder"
            )
        if index is not None and index.generation < floor:
            self._report(
                f"{self.folder}: the vault is an old copy (generation {index.generation}, expected {floor}); "
                "it is given up and the server asked for everything again"
            )
            index = None
        elif index is None and (floor or any(copies) or any(self.folder.glob("*.sealed"))):
            self._report(f"{self.folder}: the vault's index is lost; the server is asked for everything again")
        elif opened.problems and index is not None:
            self._report(f"{self.folder}: {'; '.join(opened.problems)}; the other copy of the index is used")
        elif index is not None and counter is None and self._access.counter is not None:
            self._report(f"{self._access.counter}: the vault's counter is missing; an old copy could not be told")
        # Entries without any index are no loss: a first change that was interrupted leaves them, and nothing held yet.
        lost = index is None and bool(floor or any(copies))
        self._began_anew = lost or (index is not None and _BEGAN_ANEW in index.entries)
        # The counter's vault goes on, with generations that none of its old files has.
        self._index = index or Index(vault or os.urandom(VAULT_ID_BYTES), floor)
        self._key = opened.key if index is not None and opened.key is not None else keys[0]

    def _counted(self, counter: bytes | None, keys: tuple[VaultKey, ...]) -> tuple[bytes | None, int]:
        if counter is None:
            return None, 0
        try:
            return open_counter(counter, keys)
        except SealError as error:
            self._report(f"{self._access.counter}: the vault's counter is {error}; an old copy could not be told")
            return None, 0

    def _read_copies(self) -> RawCopies:
        try:
            return read_copies(self.folder)
        except OSError as error:
            raise UserError(f"{self.folder}: the vault cannot be read ({error.strerror or error})") from None

    def _foreign(self, error: SealError) -> str:
        if isinstance(error, UnknownFormatError):
            return f"{self.folder}: the vault is of another version of fedsieve; use that version, or remove the folder"
        return (
            f"{self.folder}: {self._access.keys.name} is not this vault's key; use the right key, or, if it is lost, "
            "remove the folder: the server sends what is needed again"
        )
