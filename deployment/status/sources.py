"""The two files that the page is made from, as they last could be read."""

import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deployment.status.fields import parse_object

SERVE = Path("serve.json")
# A run writes into its output folder's `server`.
JOURNALS = (Path("run/journal.json"), Path("run/server/journal.json"))
_LARGEST_BYTES = 256 << 20


@dataclass(frozen=True)
class Reading:
    """What a file says. record: the last content that was whole, None if there never was any.

    written: when that content was written, seconds since 1970. problem: why the file cannot be read now, None if it
    can; where there is a record all the same, it is out of date.
    """

    record: dict[str, Any] | None = None
    written: float | None = None
    problem: str | None = None

    def age(self, now: float) -> float | None:
        """Return how old the content is, in seconds."""
        return None if self.written is None else max(0.0, now - self.written)


class Source:
    """One file, found under one of several names: the newest counts. Remembers what it last could read."""

    def __init__(self, *paths: Path) -> None:
        """Take the paths; none of them need exist."""
        self._paths = paths
        self._reading = Reading()
        self._seen: tuple[Path, int, int, int] | None = None
        self._lock = threading.Lock()

    def read(self) -> Reading:
        """Return what the file says now. Never raises: whatever is wrong with the file is the reading's `problem`."""
        with self._lock:
            try:
                self._reading = self._read()
            except FileNotFoundError:
                self._fail(f"{self._paths[0].name}: not there")
            except OSError as error:
                self._fail(f"{self._paths[0].name}: {os.strerror(error.errno) if error.errno else 'unreadable'}")
            except ValueError:
                self._fail(f"{self._paths[0].name}: damaged or half-written")
            return self._reading

    def _read(self) -> Reading:
        path, found = _newest(self._paths)
        version = (path, found.st_mtime_ns, found.st_size, found.st_ino)
        if version != self._seen:
            if found.st_size > _LARGEST_BYTES:
                raise ValueError("too large to be what it should be")
            record = parse_object(path.read_bytes())
            self._seen = version
            return Reading(record, found.st_mtime)
        return Reading(self._reading.record, self._reading.written)

    def _fail(self, problem: str) -> None:
        self._seen = None
        self._reading = Reading(self._reading.record, self._reading.written, problem)


class State:
    """The state folder of a serve, read only."""

    def __init__(self, folder: Path) -> None:
        """Take the folder; it need not exist yet."""
        self._serve = Source(folder / SERVE)
        self._journal = Source(*(folder / journal for journal in JOURNALS))

    def read(self) -> tuple[Reading, Reading, float]:
        """Return what serve.json and the journal say, and the time (seconds since 1970). Never raises."""
        return self._serve.read(), self._journal.read(), time.time()


def _newest(paths: Sequence[Path]) -> tuple[Path, os.stat_result]:
    """Return the path that was written last, and what is known of it. Raises OSError if there is none."""
    found = []
    for path in paths:
        try:
            found.append((path, path.stat()))
        except FileNotFoundError:
            continue
    if not found:
        raise FileNotFoundError
    return max(found, key=lambda one: one[1].st_mtime_ns)
