"""A recording: every byte that leaves a device, in one file that only grows, with what is needed to read it.

What comes down is kept to tell what the device was asked for; anything large in it, such as pieces of a backbone, is
kept by its hash alone. Private data are never written.
"""

import hashlib
import json
import os
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from personalization.errors import UserError
from personalization.system.files import write_all

SUFFIX = ".recording"
LARGEST_KEPT = 1 << 16
_MAGIC = b"fedsieve recording 1\n"
# Kind, number of the connection or client, seconds since 1970, length of what follows.
_HEAD = struct.Struct("<cIdI")


class Kind(StrEnum):
    """What an entry of a recording is."""

    BEGINNING = "B"
    """JSON: what is recorded, whose it is, and where it may connect to. One for every process that records."""
    CONNECTION = "C"
    """An address that the process connects to, as text."""
    UP = "U"
    """Bytes that leave: a whole message of a simulated client, or a part of what a device sends on a connection."""
    DOWN = "D"
    """JSON about what came down, a line feed, and it itself unless it is large."""


@dataclass(frozen=True)
class Entry:
    """One entry. channel: number of the connection, or of the simulated client. place: its first byte in the file."""

    kind: Kind
    channel: int
    seconds: float
    data: bytes
    place: int

    def facts(self) -> dict[str, Any]:
        """Return what a beginning says. Raises ValueError."""
        return _object(self.data)

    def down(self) -> tuple[dict[str, Any], bytes]:
        """Return the facts about what came down, and it itself. Raises ValueError."""
        facts, _, body = self.data.partition(b"\n")
        return _object(facts), body

    def check(self) -> None:
        """Raise ValueError unless the entry can be read as what it is."""
        if self.kind in (Kind.BEGINNING, Kind.DOWN):
            self.down()
        elif self.kind is Kind.CONNECTION:
            self.data.decode()


class Recorder:
    """Appends entries to a file of mode 600, each with one write; several processes and threads may do so."""

    def __init__(self, path: Path, **facts: Any) -> None:
        """Open the file, which is made if need be, and write its beginning. Raises OSError, UserError."""
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        self._lock = threading.Lock()
        if os.fstat(self._file).st_size == 0:
            write_all(self._file, _MAGIC)
        else:
            _mend(self._file, path)
        self._add(Kind.BEGINNING, json.dumps(facts).encode(), 0)

    def connection(self, channel: int, address: str) -> None:
        """Note that a connection is opened. Raises OSError."""
        self._add(Kind.CONNECTION, address.encode(), channel)

    def up(self, data: bytes, *, channel: int) -> None:
        """Keep bytes that leave. Raises OSError."""
        self._add(Kind.UP, data, channel)

    def down(self, body: bytes, *, channel: int, **facts: Any) -> None:
        """Keep what came down, by its hash alone if it is large, and facts about it. Raises OSError."""
        about: dict[str, Any] = {"bytes": len(body), **facts}
        if len(body) > LARGEST_KEPT:
            about["sha256"], body = hashlib.sha256(body).hexdigest(), b""
        self._add(Kind.DOWN, json.dumps(about).encode() + b"\n" + body, channel)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def _add(self, kind: Kind, data: bytes, channel: int) -> None:
        entry = _HEAD.pack(kind.value.encode(), channel, time.time(), len(data)) + data
        with self._lock:
            write_all(self._file, entry)


def read_recording(path: Path) -> Iterator[Entry]:
    """Yield the entries of a recording, which may still grow. Raises UserError if it is none or is damaged, OSError."""
    with path.open("rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise UserError(f"{path}: not a recording; expected what --record wrote")
        while True:
            place, head = file.tell(), file.read(_HEAD.size)
            if not head:
                return
            kind, channel, seconds, size = _HEAD.unpack(head) if len(head) == _HEAD.size else (b"", 0, 0.0, 0)
            # A size is believed once so much is there.
            there = size <= os.fstat(file.fileno()).st_size - file.tell()
            if kind.decode("latin-1") not in set(Kind) or not there:
                raise _damaged(path, place)
            entry = Entry(Kind(kind.decode()), channel, seconds, file.read(size), place)
            try:
                entry.check()
            except ValueError as error:
                raise _damaged(path, place) from error
            yield entry


def recordings(folder: Path) -> list[Path]:
    """Return the recordings in a folder."""
    return sorted(folder.glob(f"*{SUFFIX}"))


def _object(raw: bytes) -> dict[str, Any]:
    try:
        found = json.loads(raw)
    except RecursionError as error:
        raise ValueError("JSON that is nested too deeply") from error
    if not isinstance(found, dict):
        raise ValueError("not a JSON object")
    return found


def _damaged(path: Path, place: int) -> UserError:
    return UserError(f"{path}: damaged at byte {place}: what stands there is not a whole entry")


def _mend(descriptor: int, path: Path) -> None:
    """Cut off an entry that a power cut left unfinished. Raises UserError if the file is no recording."""
    size, place = os.fstat(descriptor).st_size, len(_MAGIC)
    if os.pread(descriptor, len(_MAGIC), 0) != _MAGIC:
        raise UserError(f"{path}: not a recording; choose another folder")
    while place < size:
        head = os.pread(descriptor, _HEAD.size, place)
        end = place + _HEAD.size + (_HEAD.unpack(head)[3] if len(head) == _HEAD.size else size)
        if end > size:
            os.ftruncate(descriptor, place)
            return
        place = end
