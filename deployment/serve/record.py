"""`serve.json`: what the server does, for the status page and for whoever looks. Counts only, no device's own data."""

import contextlib
import json
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from deployment.serve.registration import NodeCounts
from personalization.system.files import write_atomically

_RUNS_KEPT = 50


@dataclass
class RunRecord:
    """One run as submitted. state: running, completed, failed or stopped. Times are ISO 8601, UTC."""

    number: int
    run_id: str
    started: str
    ended: str | None = None
    state: str = "running"
    reason: str = ""


@dataclass
class ServeRecord:
    """What `serve.json` holds. phase: starting, idle, running or stopping. processes: name: state and restarts."""

    fleet: str
    server: str
    started: str
    settings: dict[str, Any]
    phase: str = "starting"
    processes: dict[str, dict[str, Any]] = field(default_factory=dict)
    nodes: NodeCounts = field(default_factory=lambda: NodeCounts(0, 0, 0))
    runs: list[RunRecord] = field(default_factory=list)
    next_run: str | None = None

    def write(self, path: Path, now: datetime) -> None:
        """Write it, atomically. Raises OSError."""
        self.runs = self.runs[-_RUNS_KEPT:]
        write_atomically(path, json.dumps({**asdict(self), "written": time_text(now)}, indent=1).encode())


def earlier_runs(path: Path) -> list[RunRecord]:
    """Return the runs that an earlier server noted; none if there is no record, or it is damaged.

    A run that was under way when that server was killed is over.
    """
    runs = []
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
        runs = [RunRecord(**run) for run in json.loads(path.read_bytes())["runs"]]
    for run in runs:
        if run.ended is None:
            run.ended, run.state, run.reason = run.started, "stopped", "the server was killed"
    return runs


def time_text(time: datetime) -> str:
    """Return a time in UTC in ISO 8601, to the second."""
    return time.isoformat(timespec="seconds")
