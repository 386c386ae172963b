"""The commands as processes: started as a user would, killed as a power cut would, and none left in the end."""

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deployment.serve.processes import end_marked, end_with_parent, marked_processes
from personalization.errors import UserError

ROOT = Path(__file__).parents[2]
_ALL, _PART = "FEDSIEVE_EDGE", "FEDSIEVE_EDGE_PART"
_POLL_SECONDS = 0.1
_END_SECONDS = 30.0


class EdgeError(Exception):
    """Something that had to come out did not; the text is one line that says what."""


@dataclass
class Part:
    """A command that stays: the server, or one device. marker: NAME=VALUE in the environment of all its processes."""

    name: str
    marker: str
    log: Path
    process: subprocess.Popen[bytes]

    def lines(self) -> list[str]:
        """Return what it has said so far."""
        return self.log.read_text(errors="replace").splitlines()

    def events(self, name: str) -> int:
        """Return how often it has told an event of this name (`fedsieve join --json`)."""
        found = 0
        for line in self.lines():
            try:
                found += json.loads(line)["event"] == name
            except (ValueError, KeyError, TypeError):
                continue
        return found

    def power_cut(self) -> None:
        """Kill all of its processes at once (SIGKILL): nothing of it can say goodbye or tidy up."""
        end = time.monotonic() + _END_SECONDS
        while processes := marked_processes(self.marker):
            for process in processes:
                try:
                    os.kill(process, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            if time.monotonic() > end:
                raise EdgeError(f"{self.name}: processes {processes} cannot be killed")
        self.process.wait(_END_SECONDS)

    def end(self) -> int:
        """Ask it to end (SIGTERM) and return its exit code."""
        self.process.terminate()
        try:
            return self.process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            raise EdgeError(f"{self.name}: not ended {_END_SECONDS:g} s after SIGTERM; see {self.log}") from None


@dataclass
class Commands:
    """Runs `fedsieve` in processes that can all be found again. logs: folder of their output."""

    logs: Path
    _token: str = field(default_factory=lambda: uuid.uuid4().hex)
    _stopped: bool = False

    def __enter__(self) -> "Commands":
        """Start with nothing running."""
        self.logs.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, *_: object) -> None:
        """End whatever still runs, however this ends."""
        self.stop()

    def stop(self) -> None:
        """End whatever still runs, and start nothing more."""
        self._stopped = True
        try:
            end_marked(f"{_ALL}={self._token}")
        except KeyboardInterrupt:  # a second Ctrl-C does not leave them running
            end_marked(f"{_ALL}={self._token}", patience=0.0)
            raise

    def left(self) -> list[int]:
        """Return the ids of the processes that run."""
        return marked_processes(f"{_ALL}={self._token}")

    def start(self, name: str, *arguments: object, environment: Mapping[str, str] | None = None) -> Part:
        """Start a command that stays. It ends when this process does, however that went."""
        place = f"{self._token}/{name}"
        number = 1 + len(list(self.logs.glob(f"{name}-*.log")))
        log = self.logs / f"{name}-{number}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                _command(arguments),
                cwd=ROOT,
                env=self._environment({**(environment or {}), _PART: place}),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=end_with_parent,
            )
        return Part(name, f"{_PART}={place}", log, process)

    def ask(self, *arguments: object, environment: Mapping[str, str] | None = None) -> Any:
        """Run a command with `--json` to its end and return what it prints. Raises EdgeError with its last line."""
        if self._stopped:
            raise EdgeError(f"fedsieve {arguments[0]}: not begun, since everything ends")
        done = subprocess.run(
            _command((*arguments, "--json")),
            cwd=ROOT,
            env=self._environment(environment or {}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            start_new_session=True,
        )
        if done.returncode:
            said = done.stderr.strip().splitlines() or ["it said nothing"]
            raise EdgeError(f"fedsieve {arguments[0]}: exit code {done.returncode}: {said[-1]}")
        return json.loads(done.stdout)

    def _environment(self, own: Mapping[str, str]) -> dict[str, str]:
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
        # One thread each: there are more processes than processors, and sums come out as in the simulator.
        return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path, _ALL: self._token, **own}


def wait_for(what: str, condition: Callable[[], object], *parts: Part, seconds: float) -> None:
    """Wait until `condition` is true. Raises EdgeError if one of `parts` ends before, or after `seconds`."""
    end = time.monotonic() + seconds
    while not condition():
        for part in parts:
            code = part.process.poll()
            if code is not None:
                last = (part.lines() or ["it said nothing"])[-1]
                raise EdgeError(f"{part.name} ended with exit code {code} before {what}: {last}")
        if time.monotonic() > end:
            raise EdgeError(f"{what}: not within {seconds:g} s")
        time.sleep(_POLL_SECONDS)


def check_machine() -> None:
    """Raise UserError where processes cannot be found by a mark in their environment."""
    if sys.platform != "linux":
        raise UserError("this demonstration kills and finds processes through /proc; it needs Linux")


def _command(arguments: tuple[object, ...]) -> list[str]:
    return [sys.executable, "-m", "fedsieve", *map(str, arguments)]
