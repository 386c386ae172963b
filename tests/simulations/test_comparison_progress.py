import io
from pathlib import Path

import pytest
from fake_cells import SCENARIO
from rich.console import Console

from simulations.comparison.cells import Cell
from simulations.comparison.run import Progress
from simulations.report.comparison_progress import ComparisonProgress

DONE, FAILED = (Cell(method=method, scenario=SCENARIO, seed=0) for method in ("mean", "krum"))


@pytest.mark.parametrize("terminal", [True, False])
def test_a_failure_always_has_a_line_and_success_where_there_is_no_bar(terminal: bool) -> None:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=200)
    with ComparisonProgress(console) as progress:
        progress.started(3, 5)
        progress.show(Progress(4, 5, DONE, "budget=0.5", "", None))
        progress.show(Progress(5, 5, FAILED, "budget=0.5", "[red]out of luck", Path("failed/key.txt")))
    assert isinstance(console.file, io.StringIO)
    shown = console.file.getvalue()
    assert (progress.kept, progress.total) == (4, 5)
    assert "3 of 5 cells are there already" in shown
    assert "cell 5 of 5 failed: krum, budget=0.5, seed 0: [red]out of luck (failed/key.txt)" in shown
    assert ("cell 4 of 5: mean, budget=0.5, seed 0" in shown) is not terminal
