"""What happens: enrolment, start, rounds, a power cut at a device, a power cut at the server, and the end."""

import json
import shutil
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from benchmarks.edge.commands import Commands, EdgeError, Part, wait_for
from benchmarks.edge.device import Device
from benchmarks.edge.settings import EdgeSettings, serve_arguments
from benchmarks.process_tree import TreeUsage
from deployment.serve.runs import read_journal, rounds_done
from server.journal import Journal

Say = Callable[[str], None]
SERVER, CUT_OFF = "server", "round"
_START_SECONDS = 120.0
_PATIENCE_SECONDS = 200.0
_MEMORY_SECONDS = 0.5


@dataclass
class Seen:
    """What was seen. back: seconds from the kill until it was back, by name; the server is `server`, and `round` is
    when the round that its kill had cut off was done. memory: what each device's processes took together."""

    back: dict[str, float] = field(default_factory=dict)
    memory: dict[str, TreeUsage] = field(default_factory=dict)
    status: dict[str, Any] = field(default_factory=dict)
    exit_codes: dict[str, int] = field(default_factory=dict)


class Story:
    """One demonstration while it runs."""

    def __init__(
        self, settings: EdgeSettings, model: Path, devices: Sequence[Device], commands: Commands, say: Say
    ) -> None:
        """Take what is to be shown. say: takes a line for everything that happens."""
        self._settings, self._devices, self._commands, self._say = settings, devices, commands, say
        port, superlink_port, status_port = free_ports(3)
        self.serve = settings.serve(model=model, port=port, superlink_port=superlink_port, status_port=status_port)
        self.seen = Seen()
        self._joined: dict[str, Part] = {}
        self._looked = 0.0
        self._server: Part | None = None

    @property
    def journal(self) -> Journal:
        """The fleet's journal. Raises EdgeError while there is none."""
        journal = read_journal(self.serve.journal_dir)
        if journal is None:
            raise EdgeError(f"{self.serve.journal_dir}: no journal")
        return journal

    def begin(self) -> None:
        """Enrol, carry each node file to its device, start the server and all devices."""
        names = [word for name in self._settings.names for word in ("--node", name)]
        self._commands.ask("enroll", self._settings.fleet, "--server", f"127.0.0.1:{self.serve.port}", *names)
        for device in self._devices:
            shutil.move(self._settings.fleet / "nodes" / f"{device.name}.json", device.node_file)
        self._say(f"enrolled {', '.join(self._settings.names)}")
        self._start_server()
        for device in self._devices:
            self._join(device)

    def rounds(self) -> None:
        """See all rounds and the final pass through, with the kills that are asked for."""
        for number in range(1, self._settings.rounds + 1):
            if number == self._settings.kill_device_in:
                self._kill_device(self._devices[0], number)
            if number == self._settings.kill_server_in:
                self._kill_server(number)
            self._await_round(number)
            record = self.journal.rounds[number - 1]
            self._say(f"round {number}: {record['clients_replied']} of {record['clients_sampled']} devices replied")
        self._wait("the final pass", lambda: self.journal.final is not None)
        self._wait("the end of the run", lambda: self._record()["runs"][-1]["state"] == "completed")
        self._say("final pass: every device has its personal model")

    def _await_round(self, number: int) -> None:
        self._wait(f"round {number}", lambda: self._done() >= number)

    def look(self) -> None:
        """Keep what the status page says."""
        host, port = self.serve.status or ("", 0)
        with urlopen(f"http://{host}:{port}/status.json", timeout=10.0) as answer:
            self.seen.status = json.loads(answer.read())

    def end(self) -> None:
        """End devices and server as an operator would. Raises EdgeError if one ends badly or leaves a process."""
        for part in (*self._joined.values(), *([] if self._server is None else [self._server])):
            self.seen.exit_codes[part.name] = part.end()
        bad = {name: code for name, code in self.seen.exit_codes.items() if code}
        if bad:
            raise EdgeError(f"ended with an exit code other than 0: {bad}; see {self._commands.logs}")
        wait_for("the end of all processes", lambda: not self._commands.left(), seconds=30.0)

    def _start_server(self) -> None:
        self._server = self._commands.start("server", *serve_arguments(self.serve))
        self._wait("the server's start", lambda: any("ready" in line for line in self._lines()), _START_SECONDS)
        self._say(f"server ready at 127.0.0.1:{self.serve.port}")

    def _join(self, device: Device) -> Part:
        part = self._commands.start(
            device.name,
            *("join", device.node_file, "--data", device.data, "--state", device.state, "--json"),
            *("--smallest-cohort", self._settings.devices),
            environment=device.environment,
        )
        self._joined[device.name] = part
        return part

    def _kill_device(self, device: Device, number: int) -> None:
        part = self._joined[device.name]
        self._wait(f"round {number} at {device.name}", lambda: self._done() >= number - 1 and _works(part))
        part.power_cut()
        killed = time.monotonic()
        self._say(f"kill -9 of {device.name}'s processes, at work on round {number}")
        again = self._join(device)
        self._wait(f"{device.name}'s return", lambda: again.events("connected") > 0)
        self.seen.back[device.name] = time.monotonic() - killed
        self._say(f"{device.name}: connected again after {self.seen.back[device.name]:.0f} s")

    def _kill_server(self, number: int) -> None:
        self._wait(f"round {number}", lambda: self._done() >= number - 1 and any(map(_works, self._joined.values())))
        assert self._server is not None
        self._server.power_cut()
        killed, done = time.monotonic(), self._done()
        self._say(f"kill -9 of the server, its SuperLink and its proxy, in round {number}")
        self._start_server()
        self.seen.back[SERVER] = time.monotonic() - killed
        self._wait("the round that was cut off", lambda: self._done() > done or self.journal.final is not None)
        self.seen.back[CUT_OFF] = time.monotonic() - killed
        self._say(f"the round that was cut off is done after {self.seen.back[CUT_OFF]:.0f} s")

    def _wait(self, what: str, condition: Callable[[], object], seconds: float | None = None) -> None:
        parts = [*self._joined.values(), *([] if self._server is None else [self._server])]

        def look() -> object:
            self._measure()
            return condition()

        patience = _PATIENCE_SECONDS + self._settings.deadline
        wait_for(what, look, *parts, seconds=patience if seconds is None else seconds)

    def _measure(self) -> None:
        """Note how much memory the devices' processes take now."""
        if time.monotonic() - self._looked > _MEMORY_SECONDS:
            for name, part in self._joined.items():
                self.seen.memory.setdefault(name, TreeUsage()).look(part.process.pid)
            self._looked = time.monotonic()

    def _done(self) -> int:
        return rounds_done(self.serve.journal_dir)

    def _lines(self) -> list[str]:
        return [] if self._server is None else self._server.lines()

    def _record(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.serve.state / "serve.json").read_bytes())
        return found


def _works(part: Part) -> bool:
    """Say whether a device has a message that it has not answered."""
    return part.events("received") > part.events("sent")


def free_ports(count: int) -> list[int]:
    """Return so many ports of the loopback interface that nobody listens on."""
    with ExitStack() as stack:
        listeners = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [int(listener.getsockname()[1]) for listener in listeners]
