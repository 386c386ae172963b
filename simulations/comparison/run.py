"""Run a comparison: only the cells that are not there yet, then its table and summary from all of them."""

import json
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from personalization.errors import UserError
from personalization.system.files import write_atomically
from simulations.comparison.cache import Cache, opened_cache
from simulations.comparison.cells import Cell
from simulations.comparison.comparison import Comparison
from simulations.comparison.engine_processes import run_in_processes
from simulations.comparison.engine_ray import run_under_ray
from simulations.comparison.results import ResultsTable
from simulations.comparison.summary import Collected, summarize
from simulations.comparison.work import Outcome

RESULTS, SUMMARY = "results.csv", "summary.json"
ENGINES = ("processes", "ray")


class Engine(Protocol):
    """Computes cells; yields the outcome of each as soon as it is there, in any order, and stops when closed."""

    def __call__(self, cells: Sequence[Cell], *, scratch: Path) -> Generator[Outcome, None, None]:
        """Begin with `cells`; `scratch` is a folder for what runs write."""


@dataclass(frozen=True)
class Progress:
    """What is told after each cell: how many of `total` are done or failed, and whether this one failed and why."""

    done: int
    total: int
    cell: Cell
    point: str
    error: str = ""
    trace: Path | None = None


def make_engine(name: str, *, jobs: int, run_cell: str) -> Engine:
    """Return the engine called `name` with `jobs` cells at a time. Raises UserError.

    run_cell: the function that computes a cell, as `module:name`.
    """
    if name not in ENGINES:
        raise UserError(f"engine {name!r}: expected one of {', '.join(ENGINES)}")
    if jobs < 1:
        raise UserError(f"jobs {jobs}: expected 1 or more")

    def processes(cells: Sequence[Cell], *, scratch: Path) -> Generator[Outcome, None, None]:
        return run_in_processes(cells, run_cell=run_cell, jobs=jobs, scratch=scratch)

    def ray(cells: Sequence[Cell], *, scratch: Path) -> Generator[Outcome, None, None]:
        return run_under_ray(cells, run_cell=run_cell, jobs=jobs)

    return processes if name == "processes" else ray


def run_comparison(
    comparison: Comparison,
    *,
    out: Path,
    engine: Engine,
    command: str,
    on_start: Callable[[int, int], None] = lambda cached, total: None,
    on_cell: Callable[[Progress], None] = lambda progress: None,
) -> dict[str, Any]:
    """Compute what is missing, write results.csv and summary.json into `out`, and return the summary.

    A cell that fails is reported and in the summary, and run again next time; the others go on. on_start: called with
    the number of cells that are there already and of all. on_cell: called after each cell. Raises UserError for a
    folder that can't be used; an interrupt comes through, and what is done is kept.
    """
    with opened_cache(out) as cache:
        cells = {cell.key: (point, cell) for point, cell in comparison.cells()}
        missing = [cell for _, cell in cells.values() if not cache.holds(cell)]
        on_start(len(cells) - len(missing), len(cells))
        failed: dict[str, str] = {}
        if missing:
            with closing(engine(missing, scratch=cache.scratch)) as outcomes:
                for number, outcome in enumerate(outcomes, len(cells) - len(missing) + 1):
                    point, cell = cells[outcome.key]
                    trace = _keep(cache, cell, outcome)
                    if trace is not None:
                        failed[cell.key] = outcome.error
                    label = comparison.points[point].label
                    on_cell(Progress(number, len(cells), cell, label, outcome.error, trace))
        return _write(comparison, cache, failed, command)


def _keep(cache: Cache, cell: Cell, outcome: Outcome) -> Path | None:
    """Keep an outcome and return the file that holds what went wrong, if anything did."""
    if outcome.result is None:
        return cache.save_failure(cell, outcome.trace)
    cache.save(cell, outcome.result)
    return None


def _write(comparison: Comparison, cache: Cache, failed: dict[str, str], command: str) -> dict[str, Any]:
    """Read all results, one at a time, and write what they come to."""
    collected, table = Collected(comparison), ResultsTable(list(comparison.sweep))
    for number, cell in comparison.cells():
        result = None if cell.key in failed else cache.load(cell)
        if result is None:
            collected.failed[number, cell.method, cell.seed] = failed.get(cell.key, "its result can't be read")
        else:
            collected.add(number, cell, result)
            table.add(comparison.points[number], cell, result)
    summary = summarize(collected, command=command)
    write_atomically(cache.out / RESULTS, table.to_bytes(), mode=0o644)
    write_atomically(cache.out / SUMMARY, json.dumps(summary, indent=1, allow_nan=False).encode(), mode=0o644)
    return summary
