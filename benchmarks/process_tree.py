"""CPU time and memory of a process and everything that it starts, read from /proc."""

import os
import subprocess
import threading
from dataclasses import dataclass, field
from pathlib import Path

_PERIOD_SECONDS = 0.25


@dataclass
class TreeUsage:
    """CPU seconds of all processes together, and the largest sum of their memory in bytes."""

    peak_memory_bytes: int = 0
    by_process: dict[int, float] = field(default_factory=dict)

    @property
    def cpu_seconds(self) -> float:
        """Sum over all processes that were seen."""
        return sum(self.by_process.values())

    def look(self, root: int) -> None:
        """Add what the tree under process `root` has used by now."""
        parents, ticks = _processes()
        tree = {root}
        while more := {pid for pid, parent in parents.items() if parent in tree} - tree:
            tree |= more
        for pid in tree & ticks.keys():
            self.by_process[pid] = ticks[pid]
        self.peak_memory_bytes = max(self.peak_memory_bytes, sum(map(_memory, tree)))


def watch(process: "subprocess.Popen[str]") -> tuple[str, TreeUsage]:
    """Wait for `process` to end; return its output and what its tree used, to a quarter of a second."""
    usage, ended = TreeUsage(), threading.Event()

    def keep_looking() -> None:
        while not ended.wait(_PERIOD_SECONDS):
            usage.look(process.pid)

    thread = threading.Thread(target=keep_looking)
    thread.start()
    try:
        output, _ = process.communicate()
    finally:
        ended.set()
        thread.join()
    return output, usage


def _processes() -> tuple[dict[int, int], dict[int, float]]:
    parents, seconds = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(entry.name)] = int(fields[1])
            seconds[int(entry.name)] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return parents, seconds


def _memory(pid: int) -> int:
    """Return the proportional set size, so that memory which processes share counts once."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        return 0
    return 0
