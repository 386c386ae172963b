"""A fleet of real processes on loopback, to be hit: `fedsieve serve`, `fedsieve join` for each device, a network."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.faults.network import Relay, free_port
from client.state import ClientState
from deployment.command import Enrolment, enroll
from deployment.join.stored import open_stored

ROOT = Path(__file__).parents[2]
HOOKS = Path(__file__).with_name("hooks")
ASSETS = ROOT / "simulations" / "assets"
SERVER = "server"
DEVICES = ("kitchen", "hall")
# What tells the processes that are hit from others of the fleet: a part of their command line.
SUPERLINK, PROXY, SERVER_APP = "deployment.serve.superlink", "nginx: master", "flwr-serverapp"
SUPERNODE, CLIENT_APP = "deployment.join.supernode", "client/process.py"
_MARK = "FAULTS_FLEET"
_CLASSES_EACH, _IMAGES_EACH = 3, 16


class FaultError(Exception):
    """Something was waited for that did not happen; the text says what."""


@dataclass(frozen=True, kw_only=True)
class FleetOptions:
    """deadline: seconds of a round. probes: of a round. small_disks: bytes of the file systems (tmpfs, needs root) that
    hold the state of the device that is hit and of the server; None puts them on the ordinary disk."""

    deadline: float = 40.0
    probes: int = 3
    small_disks: tuple[int, int] | None = None


@dataclass
class FaultFleet:
    """Server, devices and the network between them, in `folder`. Started with `start`, ended with `stop`."""

    folder: Path
    options: FleetOptions = field(default_factory=FleetOptions)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    mounted: list[Path] = field(default_factory=list)

    def start(self) -> None:
        """Enrol, start everything and return. Raises OSError, UserError."""
        self._port, self._superlink = free_port(), free_port()
        self.network = Relay(self._port)
        enroll(self.folder / "fleet", Enrolment(server=f"127.0.0.1:{self.network.port}", nodes=list(DEVICES)))
        for name in (SERVER, *DEVICES):
            (self.folder / "points" / name).mkdir(parents=True)
        with np.load(ASSETS / "fashion_mnist_subset.npz") as bundled:
            images, labels = bundled["train_images"], bundled["train_labels"]
        for place, name in enumerate(DEVICES):
            _write_images(self.data(name), images, labels, first=place * _CLASSES_EACH)
        if self.options.small_disks is not None:
            for path, size in zip((self.state(DEVICES[0]), self.server_state), self.options.small_disks, strict=True):
                self._mount(path, size)
        self.serve()
        for name in DEVICES:
            self.join(name)

    def serve(self) -> None:
        """Start the server."""
        settings = ["--model", ASSETS / "vit_fashion_mnist", "--state", self.server_state, "--host", "127.0.0.1"]
        settings += ["--port", self._port, "--superlink-port", self._superlink, "--no-status", "--rounds", 100_000]
        settings += ["--deadline", self.options.deadline, "--probes", self.options.probes, "--budget", 0.3]
        settings += ["--secure-aggregation", "off"]  # two devices are too few for a sum
        self._start(SERVER, "serve", self.folder / "fleet", *settings)

    def join(self, name: str, *, clock: bool = False) -> None:
        """Start a device. clock: whether its clock can be moved, see `set_clock`."""
        node_file = self.folder / "fleet" / "nodes" / f"{name}.json"
        more = {"FAULTS_CLOCK": "1"} if clock else {}
        options = ["--data", self.data(name), "--state", self.state(name), "--in-the-open", "--json"]
        self._start(name, "join", node_file, *options, **more)

    def end(self, name: str) -> int:
        """End the server or a device as its operator would; return the exit code."""
        process = self.processes.pop(name)
        process.terminate()
        return process.wait(60)

    def stop(self) -> list[str]:
        """End everything; return the command lines of what was left, and kill it."""
        for name in reversed(list(self.processes)):
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.end(name)
        left = [line for _, line in self.running()]
        for pid, _ in self.running():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.network.close()
        for path in reversed(self.mounted):
            subprocess.run(["umount", "-l", path], check=False)
        return left

    @property
    def server_state(self) -> Path:
        """State folder of the server."""
        return self.folder / "server-state"

    def state(self, name: str) -> Path:
        """State folder of a device."""
        return self.folder / "devices" / name / "state"

    def data(self, name: str) -> Path:
        """Images of a device."""
        return self.folder / "devices" / name / "images"

    def log(self, name: str) -> str:
        """What the server or a device has written."""
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def opened(self, name: str) -> ClientState:
        """Return a device's state as `fedsieve predict` opens it. Raises UserError."""
        return open_stored(self.state(name), None, self._environment(name))[0]

    def rounds(self) -> list[dict[str, Any]]:
        """Return the rounds in the journal."""
        path = self.server_state / "run" / "journal.json"
        rounds: list[dict[str, Any]] = json.loads(path.read_bytes())["rounds"] if path.exists() else []
        return rounds

    def runs(self) -> list[dict[str, Any]]:
        """Return the runs that the server tells of."""
        runs: list[dict[str, Any]] = json.loads((self.server_state / "serve.json").read_bytes())["runs"]
        return runs

    def running(self, kind: str = "", name: str | None = None) -> list[tuple[int, str]]:
        """Return id and command line of the processes of a kind, of the whole fleet or of the server or a device."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                if kind in line and self._is_ours(folder, line, name):
                    found.append((int(folder.name), line))
        return found

    def _is_ours(self, process: Path, line: str, name: str | None) -> bool:
        if line.startswith("nginx: master"):
            return str(self.server_state) in line and name in (None, SERVER)
        marks = (process / "environ").read_bytes().split(b"\0")
        return f"{_MARK}={self.folder}".encode() in marks and (
            name is None or f"FAULTS_FOLDER={self.points(name)}".encode() in marks
        )

    def points(self, name: str) -> Path:
        """Folder through which the processes of the server or of a device are caught in a phase."""
        return self.folder / "points" / name

    def arm(self, name: str, phase: str) -> None:
        """Let the next process of the server or a device stop when it enters a phase."""
        for file in self.points(name).glob(f"*-{phase}"):
            file.unlink()
        (self.points(name) / f"arm-{phase}").touch()

    def caught(self, name: str, phase: str, *, patience: float = 180.0) -> int:
        """Wait until a process stands still in a phase; return its id. Raises FaultError."""
        path = self.points(name) / f"at-{phase}"
        self.wait(lambda: path.exists(), f"{phase} of {name}", patience=patience)
        pid = int(path.read_text())
        self.wait(lambda: _is_stopped(pid), f"process {pid} to stand still")
        return pid

    def set_clock(self, name: str, seconds: float) -> None:
        """Move the clock of a device that was started with `clock`."""
        (self.points(name) / "clock").write_text(str(seconds))

    def wait(self, condition: Callable[[], object], what: str, *, patience: float = 180.0) -> float:
        """Wait until a condition holds; return the seconds that it took. Raises FaultError."""
        began = time.monotonic()
        while not condition():
            if time.monotonic() - began > patience:
                raise FaultError(f"waited {patience:.0f} s for {what}")
            time.sleep(0.1)
        return time.monotonic() - began

    def _start(self, name: str, *command: object, **more: str) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", "fedsieve", *map(str, command)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=ROOT,
                env=self._environment(name, **more),
            )

    def _environment(self, name: str, **more: str) -> dict[str, str]:
        kept: Mapping[str, str] = {k: v for k, v in os.environ.items() if not k.startswith(("XDG_", "FEDSIEVE_"))}
        home = self.folder / "devices" / name
        return {
            **kept,
            "HOME": str(home),
            _MARK: str(self.folder),
            "FAULTS_FOLDER": str(self.points(name)),
            "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.1",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join((str(ROOT), str(HOOKS))),
            **more,
        }

    def _mount(self, path: Path, size: int) -> None:
        path.mkdir(parents=True, mode=0o700)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "tmpfs", path], check=True)
        self.mounted.append(path)


def _is_stopped(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    except OSError:
        return False


def _write_images(folder: Path, images: Any, labels: Any, *, first: int) -> None:
    folder.mkdir(parents=True)
    for label in range(first, first + _CLASSES_EACH):
        for number, image in enumerate(images[labels == label][:_IMAGES_EACH]):
            Image.fromarray(image).save(folder / f"{label}-{number}.png")
