"""Child processes that are started again when they die, and that never outlive this one."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_FIRST_WAIT, _LONGEST_WAIT = 1.0, 60.0
_STEADY_SECONDS = 60.0
_LOG_BYTES = 16 << 20
_PR_SET_PDEATHSIG = 1


@dataclass
class Supervised:
    """A process that is to run. log: file that takes its output, of 16 MB at most, and as much again beside it.

    marker: NAME=VALUE in its environment by which its descendants are found, whatever session they are in.
    """

    name: str
    command: Sequence[str]
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    restarts: int = 0
    _process: subprocess.Popen[bytes] | None = None
    _started: float = 0.0
    _wait: float = _FIRST_WAIT
    _retry_at: float | None = None

    @property
    def state(self) -> str:
        """`up`, `restarting` or `down`."""
        if self._retry_at is not None:
            return "restarting"
        return "up" if self._process is not None and self._process.poll() is None else "down"

    @property
    def process_id(self) -> int | None:
        """Its process id, None while it does not run."""
        return None if self._process is None or self._process.poll() is not None else self._process.pid

    def start(self) -> None:
        """Start it. Raises OSError."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **self.environment},
                start_new_session=True,
                preexec_fn=end_with_parent if sys.platform == "linux" else None,
            )
        self._started, self._retry_at = time.monotonic(), None

    def tick(self) -> str | None:
        """Look after it; return a line if something happened. A process that dies again soon waits longer."""
        self._keep_log_small()
        now = time.monotonic()
        if self._retry_at is not None:
            if now < self._retry_at:
                return None
            self.restarts += 1
            self.start()
            return f"{self.name}: started again"
        code = None if self._process is None else self._process.poll()
        if self._process is None or code is None:
            return None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)  # what it has left would hold its port
        self._wait = _FIRST_WAIT if now - self._started > _STEADY_SECONDS else min(2 * self._wait, _LONGEST_WAIT)
        self._retry_at = now + self._wait / 2
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return f"{self.name}: ended by itself ({how}); starting it again in {self._wait / 2:g} s; see {self.log}"

    def last_line(self) -> str:
        """Return the last line of its output that is not empty, to say why it can't start."""
        lines = [line for line in self.log.read_text(errors="replace")[-4000:].splitlines() if line.strip()]
        return lines[-1].strip() if lines else "it said nothing"

    def stop(self, *, patience: float = 10.0) -> None:
        """End it and its process group: first asked, and after `patience` seconds killed."""
        self._retry_at = None
        if self._process is None:
            return
        for number, seconds in ((signal.SIGTERM, patience), (signal.SIGKILL, 5.0)):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(seconds)
                break
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _keep_log_small(self) -> None:
        with contextlib.suppress(OSError):
            if self.log.stat().st_size > _LOG_BYTES:
                self.log.with_suffix(".log.1").write_bytes(self.log.read_bytes())
                os.truncate(self.log, 0)  # it is open for appending: what comes next begins at the start


def marked_processes(marker: str) -> list[int]:
    """Return the ids of this user's processes, but this one, with `marker` (NAME=VALUE) in their environment.

    Flower puts some of its processes into sessions of their own, where no signal to a group reaches them. Empty where
    there is no /proc.
    """
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if int(folder.name) != os.getpid() and marker.encode() in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
    return found


def end_marked(marker: str, *, patience: float = 5.0) -> int:
    """End all processes with a marker, asked first and then killed; return how many there were."""
    first = marked_processes(marker)
    for number, seconds in ((signal.SIGTERM, patience), (signal.SIGKILL, 5.0)):
        end = time.monotonic() + seconds
        for process in marked_processes(marker):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, number)
        while marked_processes(marker) and time.monotonic() < end:
            time.sleep(0.1)
    return len(first)


def end_with_parent() -> None:
    """Make this process end when the one that started it does, however that went: otherwise it would hold its ports."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
