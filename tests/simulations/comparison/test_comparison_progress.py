import io
import time
from pathlib import Path

import pytest
from fake_cells import SCENARIO
from rich.console import Console

from simulations.comparison.cells import Cell
from simulations.comparison.run import Progress
from simulations.report.comparison.progress import ComparisonProgress

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


def test_where_there_is_no_bar_silence_is_broken_until_the_end() -> None:
    console = Console(file=io.StringIO(), width=200)
    assert isinstance(console.file, io.StringIO)
    with ComparisonProgress(console, silent_seconds=0.01) as progress:
        progress.started(0, 5)
        until = time.monotonic() + 60.0
        while "0 min: 0 of 5 cells are done" not in console.file.getvalue() and time.monotonic() < until:
            time.sleep(0.01)
    ended = console.file.getvalue()
    assert "0 min: 0 of 5 cells are done" in ended
    time.sleep(0.05)
    assert console.file.getvalue() == ended


@pytest.mark.parametrize(("terminal", "silent_seconds"), [(True, 0.01), (False, 60.0)])
def test_a_bar_and_lines_that_have_just_come_need_no_others(terminal: bool, silent_seconds: float) -> None:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=200)
    assert isinstance(console.file, io.StringIO)
    with ComparisonProgress(console, silent_seconds=silent_seconds) as progress:
        progress.started(0, 5)
        time.sleep(0.05)
        progress.show(Progress(1, 5, DONE, "budget=0.5", "", None))
    assert "cells are done" not in console.file.getvalue()
