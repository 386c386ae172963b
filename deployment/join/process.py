"""One SuperNode: its files, its process group, its log."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from client.launcher import environment_with_launcher
from client.node_file import NodeFile
from deployment.join.flower_log import LastWords, Said, Sign, plain, read_line
from deployment.join.recording import ENVIRONMENT
from personalization.system.files import write_atomically

LOG = "supernode.log"
_KEY, _AUTHORITY, _CONFIG = "node.key", "authority.crt", "node-config.toml"
_LOG_BYTES = 1 << 20
_STOP_SECONDS = 10.0
_ROOT = Path(__file__).parents[2]
# What is set for a run that needs no network but the server, and tells nobody about it.
_QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "HF_HUB_OFFLINE": "1",
}


@dataclass(frozen=True, kw_only=True)
class SuperNodeSettings:
    """What a SuperNode is started with. node_config: for the ClientApp. environment: of its processes.

    home: Flower's own folder, which is made if need be. recording: file that keeps all that it sends, if any.
    """

    node: NodeFile
    state: Path
    home: Path
    node_config: Mapping[str, str | float]
    environment: Mapping[str, str]
    recording: Path | None = None


class SuperNode:
    """A running SuperNode with its children, in a process group of their own."""

    def __init__(self, settings: SuperNodeSettings, tell: Callable[[Said], None]) -> None:
        """Write its files (mode 600) and start it. tell: called from a thread with what it says. Raises OSError."""
        self._state, self._tell, self._said = settings.state, tell, list[Said]()
        write_credentials(settings)
        settings.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Standard input tells the child that this process is gone; nothing is ever written to it.
        self._process = subprocess.Popen(
            _command(settings),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=_environment(settings),
            cwd=settings.home,
            start_new_session=True,
            text=True,
            errors="replace",
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """Id of the process, and of its group."""
        return self._process.pid

    def poll(self) -> int | None:
        """Return the exit code, None while it runs."""
        return self._process.poll()

    def stop(self) -> int:
        """End it and all its children; it may tell the server first. Returns its exit code."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_STOP_SECONDS)
        return self.clear()

    def clear(self) -> int:
        """End what is left of it. Returns its exit code."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        code = self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._reader.join(_STOP_SECONDS)
        return code

    def last_words(self) -> LastWords:
        """Return what it said about why it ended."""
        return LastWords(self._said)

    def _read(self) -> None:
        assert self._process.stdout is not None
        with open_log(self._state / LOG) as log:
            written = os.fstat(log.fileno()).st_size
            for line in self._process.stdout:
                if written < 2 * _LOG_BYTES:  # a log must not fill the disk; the next start begins a new one
                    with contextlib.suppress(OSError):
                        written += log.write(plain(line) + "\n")
                said = read_line(line)
                if said is not None:
                    if said.sign in (Sign.EXIT_CODE, Sign.SERVER_CODE, Sign.TLS_FAILED):
                        self._said.append(said)
                    self._tell(said)


def open_log(path: Path) -> TextIO:
    """Return the log, open for more lines; what was over a megabyte is put aside. A log that can't be kept is none."""
    try:
        if path.exists() and path.stat().st_size > _LOG_BYTES:
            os.replace(path, path.with_name(f"{path.name}.1"))
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    except OSError:
        descriptor = os.open(os.devnull, os.O_WRONLY)  # the pipe has to be read all the same
    return os.fdopen(descriptor, "a", buffering=1, errors="replace")


def write_credentials(settings: SuperNodeSettings) -> None:
    """Write key, authority and node configuration into the state folder (mode 600). Raises OSError."""
    state, node = settings.state, settings.node
    lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in settings.node_config.items()]
    write_atomically(state / _KEY, node.private_key.encode())
    write_atomically(state / _AUTHORITY, node.authority.encode())
    write_atomically(state / _CONFIG, "".join(lines).encode())


def remove_credentials(state: Path) -> None:
    """Remove what `write_credentials` wrote; the node file has it all."""
    for name in (_KEY, _AUTHORITY, _CONFIG):
        with contextlib.suppress(OSError):
            (state / name).unlink(missing_ok=True)


def _command(settings: SuperNodeSettings) -> list[str]:
    # The node configuration is a file, because every user of the device can read command lines. -P: no module is to
    # be found in the working directory.
    return [
        *(sys.executable, "-P", "-m", "deployment.join.supernode"),
        *("--superlink", settings.node.server),
        *("--root-certificates", str(settings.state / _AUTHORITY)),
        *("--auth-supernode-private-key", str(settings.state / _KEY)),
        *("--node-config", str(settings.state / _CONFIG)),
        *("--isolation", "subprocess"),
        *("--host", "127.0.0.1", "--port", str(_free_port())),
    ]


def _environment(settings: SuperNodeSettings) -> dict[str, str]:
    own = settings.environment
    # Flower starts its other programs by name: they have to be those of this environment.
    programs = os.pathsep.join(filter(None, [str(Path(sys.executable).parent), own.get("PATH", "")]))
    modules = os.pathsep.join(filter(None, [str(_ROOT), own.get("PYTHONPATH", "")]))
    home = str(settings.home)
    if settings.recording is not None:
        own = {**own, ENVIRONMENT: str(settings.recording)}
    quiet = {**own, **_QUIET, "PATH": programs, "PYTHONPATH": modules, "FLWR_HOME": home, "PYTHONUNBUFFERED": "1"}
    return environment_with_launcher(settings.home / "bin", quiet)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
