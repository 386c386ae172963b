"""What a comparison shows while it goes: a bar of cells on a terminal, a plain line a cell elsewhere.

A cell of a language model takes a quarter of an hour, so where there is no bar, lines tell that work goes on.
"""

import time
from threading import Event, Thread
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from simulations.comparison.run import Progress
from simulations.report.comparison.table import cell_name
from simulations.report.transient_bar import TransientBar

# Drawing costs processor time that the cells could use.
_DRAWN_PER_SECOND = 1.0
_SILENT_SECONDS = 60.0


class ComparisonProgress(TransientBar):
    """Shows a comparison on `console` (standard error, so that results can be piped); failures always have a line.

    kept: how many cells are done by now, of `total`. silent_seconds: after how long without a line there is one that
    says how many are done, where there is no terminal.
    """

    def __init__(self, console: Console, *, silent_seconds: float = _SILENT_SECONDS) -> None:
        """Set up the bar; it is drawn only on a terminal."""
        super().__init__(
            console,
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            refresh_per_second=_DRAWN_PER_SECOND,
        )
        self.kept = self.total = 0
        self._task = self._bar.add_task("cells", total=None)
        self._begun = self._said = time.monotonic()
        self._silent_seconds, self._ended = silent_seconds, Event()
        self._reminder = Thread(target=self._remind, daemon=True)

    def __enter__(self) -> Self:
        """Start the bar, or the lines in its place."""
        super().__enter__()
        if not self._console.is_terminal:
            self._reminder.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take the bar away, or end the lines."""
        self._ended.set()
        if self._reminder.is_alive():
            self._reminder.join()
        super().__exit__(kind, error, trace)

    def started(self, cached: int, total: int) -> None:
        """Tell how many of `total` cells are there from before."""
        self.kept, self.total = cached, total
        self._bar.update(self._task, total=total, completed=cached)
        if cached:
            self._say(f"{cached} of {total} cells are there already")

    def show(self, progress: Progress) -> None:
        """Tell that a cell is done or has failed."""
        self.kept += not progress.error
        self._bar.update(self._task, completed=progress.done, description=progress.cell.method)
        name = cell_name(progress.cell.method, progress.point, progress.cell.seed)
        if progress.error:
            self._say(f"cell {progress.done} of {progress.total} failed: {name}: {progress.error} ({progress.trace})")
        elif not self._console.is_terminal:
            self._say(f"cell {progress.done} of {progress.total}: {name}")

    def _remind(self) -> None:
        while not self._ended.wait(max(self._said + self._silent_seconds - time.monotonic(), 0.0)):
            now = time.monotonic()
            if now - self._said >= self._silent_seconds:
                self._say(f"{(now - self._begun) / 60.0:.0f} min: {self.kept} of {self.total} cells are done")

    def _say(self, line: str) -> None:
        self._said = time.monotonic()
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)
