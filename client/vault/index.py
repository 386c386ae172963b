"""The vault's table of contents: which sealed file holds which entry, as authenticated as the entries themselves.

It is kept twice. Either copy is enough, so a damaged one costs nothing; the next change writes both again.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from client.vault.sealing import SealError, UnknownFormatError, UnknownKeyError, VaultKey, seal, unseal
from personalization.system.files import write_atomically

COPIES = ("index-a.sealed", "index-b.sealed")
# Names of entries begin otherwise (see `entry_name`), so that none can pass for an index or a counter.
_INDEX, _COUNTER, _ENTRY = "index", "counter", "entry:"

RawCopies = tuple[bytes | None, ...]


@dataclass(frozen=True)
class Entry:
    """One entry: its sealed file, that file's size in bytes and SHA-256, and the generation that wrote it."""

    file: str
    size: int
    sha256: str
    generation: int


@dataclass(frozen=True)
class Index:
    """All entries of a vault. vault [16 bytes] tells it from others; generation rises by one with every change."""

    vault: bytes
    generation: int
    entries: Mapping[str, Entry] = field(default_factory=dict)


@dataclass(frozen=True)
class OpenedIndex:
    """What the copies amount to: the newest index that can be trusted, or None, its key, and what was wrong."""

    index: Index | None
    key: VaultKey | None
    problems: tuple[str, ...]
    foreign: SealError | None
    """Set if no copy could be opened and one of them is of another key or format."""


def entry_name(name: str) -> str:
    """Return the name under which an entry is sealed."""
    return _ENTRY + name


def read_copies(folder: Path) -> RawCopies:
    """Return the bytes of every copy, None for one that is missing. Raises OSError for one that cannot be read."""
    return tuple(_read(folder / name) for name in COPIES)


def write_copies(folder: Path, index: Index, key: VaultKey) -> RawCopies:
    """Write the index, one copy after the other, and return their bytes. Raises OSError."""
    table = {name: [e.file, e.size, e.sha256, e.generation] for name, e in index.entries.items()}
    data = json.dumps(table, sort_keys=True).encode()
    raw = seal(data, key=key, vault=index.vault, name=_INDEX, generation=index.generation)
    for name in COPIES:
        write_atomically(folder / name, raw)
    return tuple(raw for _ in COPIES)


def open_copies(copies: RawCopies, keys: Sequence[VaultKey]) -> OpenedIndex:
    """Open every copy with one of `keys` and return the one of the highest generation."""
    best: tuple[Index, VaultKey] | None = None
    problems: list[str] = []
    foreign: SealError | None = None
    for name, raw in zip(COPIES, copies, strict=True):
        try:
            if raw is None:
                raise SealError("missing")
            data, header = unseal(raw, keys=keys, name=_INDEX)
            entries = read_entries(data)
        except SealError as error:
            problems.append(f"{name}: {error}")
            if isinstance(error, UnknownKeyError | UnknownFormatError):
                foreign = error
            continue
        if best is None or header.generation > best[0].generation:
            index = Index(header.vault, header.generation, entries)
            best = index, next(key for key in keys if key.id == header.key_id)
    if best is None:
        return OpenedIndex(None, None, tuple(problems), foreign)
    return OpenedIndex(*best, tuple(problems), None)


def read_entries(data: bytes) -> dict[str, Entry]:
    """Return the entries that an index holds as JSON, by name. Raises SealError for what is no table of them."""
    try:
        table = json.loads(data)
    except (ValueError, RecursionError):
        table = None
    if not isinstance(table, dict) or not all(map(_is_entry, table.values())):
        raise SealError("no index of this version")
    return {name: Entry(*fields) for name, fields in table.items()}


def seal_counter(index: Index, key: VaultKey) -> bytes:
    """Return the counter for an index: it says which vault has reached which generation, and nothing else."""
    return seal(b"", key=key, vault=index.vault, name=_COUNTER, generation=index.generation)


def open_counter(raw: bytes, keys: Sequence[VaultKey]) -> tuple[bytes, int]:
    """Return vault [16 bytes] and generation. Raises SealError."""
    _, header = unseal(raw, keys=keys, name=_COUNTER)
    return header.vault, header.generation


def _is_entry(fields: Any) -> bool:
    if not isinstance(fields, list) or [type(field) for field in fields] != [str, int, str, int]:
        return False
    file, size, _, generation = fields
    return bool(file == Path(file).name and size >= 0 and generation >= 0)


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
