"""What happens in a node's state, as events: plans that came, personal models that were made, failures."""

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from client.entries import RECORD, VAULT, VERSION
from client.state import ClientState
from client.vault.index import COPIES
from personalization.errors import UserError
from personalization.wire.codes import ClientError

_ERROR = "last_error.json"
# With less than this nothing of a plan can be kept, not even why it failed.
_LITTLE_ROOM_BYTES = 1 << 20
Stamp = tuple[int, int] | None


@dataclass(frozen=True)
class Event:
    """One thing that happened: its name for machines, its line for people, and its facts."""

    name: str
    line: str
    facts: dict[str, Any] = field(default_factory=dict)


class StateWatcher:
    """Reads a state beside the ClientApp that writes it; needs no lock."""

    def __init__(self, folder: Path, open_state: Callable[[], ClientState]) -> None:
        """open_state: opens the state as it stands. What is there now is no news. Raises UserError."""
        self._folder, self._open = folder, open_state
        self._stamps = self._read_stamps()
        self._plan, self._rounds = self._read_state()
        self._failed = _stamp(folder / _ERROR)
        self._full = False

    def news(self) -> Iterator[Event]:
        """Return what happened since the last call. Raises UserError, once a change, if the state no longer opens."""
        stamps = self._read_stamps()
        if stamps != self._stamps:
            self._stamps = stamps
            plan, rounds = self._read_state()
            if plan != self._plan:
                yield Event("plan", f"plan {plan[1]} received (run {plan[0]})", {"plan": plan[1], "series": plan[0]})
            for version, entry in rounds.items():
                if self._rounds.get(version) != entry:
                    yield _personalized(version, entry)
            self._plan, self._rounds = plan, rounds
        failed = _stamp(self._folder / _ERROR)
        if failed != self._failed:
            self._failed = failed
            yield from self._failure()
        yield from self._room()

    def _read_stamps(self) -> tuple[Stamp, ...]:
        files = [self._folder / RECORD, self._folder / VERSION, *(self._folder / VAULT / name for name in COPIES)]
        return tuple(map(_stamp, files))

    def _read_state(self) -> tuple[tuple[int, int], dict[str, Any]]:
        state = self._open()
        try:
            rounds: dict[str, Any] = state.record()["rounds"]
            return state.last_plan()[0], rounds
        except (ClientError, OSError) as error:
            raise UserError(f"{self._folder}: cannot be read just now ({error})") from error

    def _room(self) -> Iterator[Event]:
        with contextlib.suppress(OSError):
            free = shutil.disk_usage(self._folder).free
            if (free < _LITTLE_ROOM_BYTES) != self._full:
                self._full = not self._full
                line = f"{free >> 10:,} KB are free on the disk of {self._folder}"
                told = f"warning: {line}; no plan can be taken until there is more" if self._full else f"{line} again"
                yield Event("disk", told, {"free": free})

    def _failure(self) -> Iterator[Event]:
        try:
            record = json.loads((self._folder / _ERROR).read_bytes())
            code, message = str(record["code"]), " ".join(str(record["message"]).split())
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return
        yield Event("failed", f"this device could not do as asked, {code}: {message}", {"code": code})


def _personalized(version: str, entry: dict[str, Any]) -> Event:
    names = ("samples", "agreement", "entropy_increase", "weights_kept")
    facts = {name: entry.get(name) for name in names}
    agreement, kept = facts["agreement"], facts["weights_kept"]
    what = "windows of text" if entry.get("task") == "text" else "samples"
    line = f"personalized for plan {version} on {facts['samples']} {what}"
    tokens = ""
    if isinstance(count := entry.get("vocabulary"), int):
        tokens, facts["vocabulary"] = f"{count:,} tokens and ", count
    if isinstance(kept, int | float):
        line += f": {tokens}{100 * kept:.0f} % of the weights kept"
    if isinstance(agreement, int | float):
        same = "next token" if entry.get("task") == "text" else "class"
        line += f", same {same} as the whole model on {100 * agreement:.0f} %"
    return Event("personalized", line, {"plan": int(version), **facts})


def _stamp(path: Path) -> Stamp:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino
