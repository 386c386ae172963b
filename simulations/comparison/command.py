"""`fedsieve compare` behind its options: check, run, write, and say how it goes."""

import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from simulations.comparison.cache import check_folder
from simulations.comparison.comparison import Comparison
from simulations.comparison.processes import call_apart
from simulations.comparison.run import make_engine, run_comparison
from simulations.report.comparison.page import write_comparison
from simulations.report.comparison.progress import ComparisonProgress

PAGE = "report.html"
# Called by their names, in processes of their own.
RUN_CELL = "simulations.comparison.cell:run_cell"
PLAN = "simulations.comparison.plan:plan_record"


def compare(
    *,
    strategies: str,
    arms: str,
    scenario: str,
    sweeps: Sequence[str],
    seeds: int,
    first_seed: int,
    jobs: int | None,
    engine: str,
    out: Path,
    console: Console,
) -> dict[str, Any]:
    """Run a comparison, write results.csv, summary.json and report.html into `out`, and return the summary.

    All but the last four: see `plan_comparison`. jobs: cells at a time, None for one a processor. console: where
    progress is shown. Without a single cell that is done there is no page. Raises UserError before the first cell runs
    for whatever is wrong with these, and KeyboardInterrupt with a line about what is kept.
    """
    run_cells = make_engine(engine, jobs=(os.cpu_count() or 1) if jobs is None else jobs, run_cell=RUN_CELL)
    check_folder(out)
    texts = {"strategies": strategies, "arms": arms, "scenario": scenario, "sweeps": list(sweeps)}
    # Apart, because what checks them needs torch: it is loaded once, where the cells' processes start from.
    record = call_apart(PLAN, {**texts, "seeds": seeds, "first_seed": first_seed})
    comparison = Comparison.from_record(record)
    words = ["fedsieve", "compare", "--strategies", strategies, "--arms", arms, "--scenario", scenario]
    words += [word for text in sweeps for word in ("--sweep", text)]
    words += ["--seeds", str(seeds), "--first-seed", str(first_seed), "--out", str(out)]
    with ComparisonProgress(console) as progress:
        try:
            summary = run_comparison(
                comparison,
                out=out,
                engine=run_cells,
                command=shlex.join(words),
                on_start=progress.started,
                on_cell=progress.show,
            )
        except KeyboardInterrupt:
            kept = f"{progress.kept} of {progress.total} cells are done and kept"
            raise KeyboardInterrupt(f"interrupted: {kept}; the same command goes on from there") from None
    if progress.kept:
        write_comparison(summary, out / PAGE)
    else:
        (out / PAGE).unlink(missing_ok=True)
    return summary
