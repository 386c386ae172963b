"""What a comparison shows while it goes: a bar of cells on a terminal, a plain line a cell elsewhere."""

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from simulations.comparison.run import Progress
from simulations.report.comparison_table import cell_name
from simulations.report.transient_bar import TransientBar

# Drawing costs processor time that the cells could use.
_DRAWN_PER_SECOND = 1.0


class ComparisonProgress(TransientBar):
    """Shows a comparison on `console` (standard error, so that results can be piped); failures always have a line.

    kept: how many cells are done by now, of `total`.
    """

    def __init__(self, console: Console) -> None:
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

    def _say(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)
