"""Cells in parallel on this machine: worker processes with one thread each, none of whose deaths stops the others."""

import json
import multiprocessing
import os
import shutil
import signal
from collections.abc import Generator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from pathlib import Path
from threading import Thread

from simulations.comparison.cells import Cell
from simulations.comparison.processes import start
from simulations.comparison.queue import CellQueue
from simulations.comparison.work import Outcome, compute

# How long a process that has closed its end may take to end itself, so that its exit code is its own.
_GRACE_SECONDS = 5.0


class _Worker:
    """A process that computes one cell after the other, and the cell that it is at."""

    def __init__(self, run_cell: str, scratch: Path) -> None:
        self.process, self.connection = start(_serve, run_cell, str(scratch))
        self.cell: Cell | None = None

    def give(self, cell: Cell) -> None:
        self.cell = cell
        with suppress(OSError):  # a worker that died has closed its end, which `answer` tells
            self.connection.send_bytes(json.dumps(cell.to_record()).encode())

    def answer(self) -> Outcome | None:
        """Return the outcome of the cell; None if the process has died."""
        try:
            return Outcome.from_bytes(self.connection.recv_bytes())
        except (EOFError, OSError):
            self.process.join(_GRACE_SECONDS)
            return None

    def stop(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()


def run_in_processes(
    cells: Sequence[Cell], *, run_cell: str, jobs: int, scratch: Path
) -> Generator[Outcome, None, None]:
    """Yield the outcome of each cell as soon as it is there, in no particular order.

    jobs: number of processes. scratch: an existing folder for what runs write; each cell's part is removed after it.
    A process that dies (killed, out of memory) fails its cell and is replaced. Closing the iterator ends all of them.
    """
    queue, workers = CellQueue(cells), list[_Worker]()
    try:
        for _ in range(min(jobs, len(cells))):
            cell = queue.take(None)
            if cell is not None:
                workers.append(_started(run_cell, scratch, cell))
        while workers:
            ready = wait([worker.connection for worker in workers])
            for worker in [w for w in workers if w.connection in ready]:
                cell, outcome = worker.cell, worker.answer()
                assert cell is not None
                following = queue.take(cell)
                if outcome is None or following is None:
                    workers.remove(worker)
                    worker.stop()
                    if following is not None:
                        workers.append(_started(run_cell, scratch, following))
                else:
                    worker.give(following)
                yield outcome or _died(cell, worker.process.exitcode)
    finally:
        for worker in workers:
            worker.stop()


def _started(run_cell: str, scratch: Path, cell: Cell) -> _Worker:
    worker = _Worker(run_cell, scratch)
    worker.give(cell)
    return worker


def _died(cell: Cell, code: int | None) -> Outcome:
    how = f"killed by {signal.Signals(-code).name}" if code is not None and code < 0 else f"exit code {code}"
    error = f"its process ended: {how}" + ("; is there too little memory?" if code == -signal.SIGKILL else "")
    return Outcome(key=cell.key, error=error, trace=error)


def _serve(connection: Connection, run_cell: str, scratch: str) -> None:
    """Compute cells until the other end is closed. An interrupt is for the process that asks, which ends this one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_end_with_parent, daemon=True).start()
    while True:
        try:
            cell = Cell.from_record(json.loads(connection.recv_bytes()))
        except EOFError:
            return
        folder = Path(scratch) / cell.key
        folder.mkdir()
        try:
            outcome = compute(cell, folder, run_cell=run_cell)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        connection.send_bytes(outcome)


def _end_with_parent() -> None:
    """End this process at once when the one that asks is gone: its next run would write to the same folders."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
