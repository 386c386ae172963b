"""What a fault does to a fleet: looked at all the time while it happens, and put into words afterwards."""

import json
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from benchmarks.faults.fleet import DEVICES, SERVER, FaultError, FaultFleet
from client.model import load_model
from personalization.errors import UserError
from personalization.wire.codes import ClientError

_PERIOD_SECONDS = 0.5
_PATIENCE = 300.0
_ORPHAN_SECONDS = 20.0


@dataclass
class Watch:
    """Looks at a running fleet from `begin` until `close`.

    broken: what must never happen and did. reads: how often a personal model was read and checked against its hashes.
    """

    fleet: FaultFleet
    broken: list[str] = field(default_factory=list)
    reads: int = 0
    _began: float = 0.0
    _rounds: int = 0
    _runs: int = 0
    _logs: dict[str, int] = field(default_factory=dict)

    def begin(self) -> None:
        """Note how things stand, and look from now on."""
        self._rounds = len(self.fleet.rounds())
        self._runs = len(self.fleet.runs())
        self._logs = {name: len(self.fleet.log(name)) for name in (SERVER, *DEVICES)}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        self.restart_clock()

    def restart_clock(self) -> None:
        """Count the seconds of recovery from now."""
        self._began = time.monotonic()
        self._rounds_then = len(self.fleet.rounds())

    def recovered(self, *, after: int | None = None) -> tuple[float, float]:
        """Wait for rounds; return the seconds to the next one, and to the next that every device has answered.

        after: count rounds from this number on, those since `restart_clock` unless given. Raises FaultError.
        """
        first = self._rounds_then if after is None else after
        self.fleet.wait(lambda: len(self.fleet.rounds()) > first, "the next round", patience=_PATIENCE)
        next_round = time.monotonic() - self._began
        self.fleet.wait(
            lambda: any(complete(record) for record in self.fleet.rounds()[first:]),
            "a round with every device",
            patience=_PATIENCE,
        )
        return next_round, time.monotonic() - self._began

    def close(self) -> None:
        """Look for processes that nobody has started any more, and end."""
        try:
            self.fleet.wait(lambda: not self._orphans(), "", patience=_ORPHAN_SECONDS)
        except FaultError:
            self.broken.append(f"left running: {'; '.join(self._orphans())}")
        self._ended.set()
        self._thread.join()

    def said(self, name: str) -> list[str]:
        """Return the lines of the server or a device since `begin`: the server's without their time."""
        lines = self.fleet.log(name)[self._logs[name] :].splitlines()
        return [line.partition(" ")[2] for line in lines] if name == SERVER else lines

    def events(self, name: str) -> list[dict[str, Any]]:
        """Return what a device's join has told since `begin`."""
        found = []
        for line in self.said(name):
            try:
                found.append(json.loads(line))
            except ValueError:
                found.append({"event": "other", "line": line})
        return found

    def seen(self) -> str:
        """Return what server and devices said of it."""
        parts = []
        for line in self.said(SERVER):
            if "ended by itself" in line:
                parts.append(f"{line.partition(':')[0]} started again")
            elif "the SuperLink does not answer" in line:
                parts.append("SuperLink silent")
            elif line.startswith("run ") and ": failed" in line:
                parts.append(line.partition(",")[0].replace(":", ""))
            elif "carries out no runs" in line:
                parts.append("SuperLink carries out no runs")
        for name in DEVICES:
            telling = ("clock", "disconnected", "disk", "failed", "reconnected", "restarting", "unreachable", "other")
            words = [_word(event) for event in self.events(name) if event["event"] in telling]
            if words:
                parts.append(f"{name}: {', '.join(_counted(words))}")
        return "; ".join(_counted(parts)) or "nothing"

    def lost(self) -> str:
        """Return which work had to be done again or was left out."""
        parts = []
        records = self.fleet.rounds()[self._rounds :]
        failed = [run for run in self.fleet.runs()[max(0, self._runs - 1) :] if run["state"] == "failed"]
        if failed:
            parts.append(f"round {self._rounds + 1} begun anew" + (f" {len(failed)} times" if len(failed) > 1 else ""))
        failures = [name for record in records for name in _failures(record)]
        if failures:
            parts.append(f"replies to the server: {', '.join(_counted(failures))}")
        absent = [record for record in records if record["clients_sampled"] < len(DEVICES)]
        if absent:
            parts.append(f"{len(absent)} rounds without a device that was away")
        return "; ".join(parts) or "nothing"

    def _look(self) -> None:
        generations, most = dict.fromkeys(DEVICES, 0), self._rounds
        while not self._ended.wait(_PERIOD_SECONDS):
            for name in DEVICES:
                try:
                    state = self.fleet.opened(name)
                    load_model(state)
                    generation = 0 if state.vault is None else state.vault.generation
                    if generation < generations[name]:
                        self._break(f"{name}'s vault went back from {generations[name]} to {generation}")
                    generations[name] = generation
                    self.reads += 1
                except (UserError, ClientError, OSError) as error:
                    self._break(f"{name}'s personal model was not readable: {error}")
            try:
                rounds = len(self.fleet.rounds())
            except (OSError, ValueError) as error:
                self._break(f"the journal was not readable: {error}")
                continue
            if rounds < most:
                self._break(f"{most - rounds} rounds were lost from the journal")
            most = max(most, rounds)

    def _break(self, line: str) -> None:
        if line not in self.broken:
            self.broken.append(line)

    def _orphans(self) -> list[str]:
        roots = {process.pid for process in self.fleet.processes.values()}
        parents = {}
        for pid, line in self.fleet.running():
            try:
                with open(f"/proc/{pid}/stat") as file:
                    parents[pid] = int(file.read().rpartition(")")[2].split()[1]), line
            except OSError:
                continue
        return [
            line for pid, (parent, line) in parents.items() if pid not in roots and parent not in {*roots, *parents}
        ]


def complete(record: dict[str, Any]) -> bool:
    """Say whether every device has answered in a round of the journal."""
    return bool(record["clients_replied"] == len(DEVICES))


def _failures(record: dict[str, Any]) -> list[str]:
    return [name for name, count in record["failures"].items() for _ in range(count)]


def _word(event: dict[str, Any]) -> str:
    if event["event"] == "failed":
        return str(event["code"])
    return str(event["line"]) if event["event"] == "other" else str(event["event"])


def _counted(words: list[str]) -> list[str]:
    return [word if (count := words.count(word)) == 1 else f"{count} x {word}" for word in dict.fromkeys(words)]
