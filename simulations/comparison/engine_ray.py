"""Cells in parallel on a Ray cluster: one task a cell."""

import logging
import os
import tempfile
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

from simulations.comparison.cells import Cell
from simulations.comparison.work import Outcome, compute, failure


def run_under_ray(cells: Sequence[Cell], *, run_cell: str, jobs: int) -> Generator[Outcome, None, None]:
    """Yield the outcome of each cell as soon as it is there, in no particular order.

    With RAY_ADDRESS in the environment the tasks go to that cluster, whose machines need fedsieve installed; else to
    a Ray of `jobs` processors on this machine, which ends with the iterator.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    size: dict[str, Any] = {} if os.environ.get("RAY_ADDRESS") else {"num_cpus": jobs, "include_dashboard": False}
    ray.init(log_to_driver=False, logging_level=logging.ERROR, **size)
    try:
        task: Any = ray.remote(num_cpus=1, max_retries=0)(_compute)
        running = {task.remote(cell.to_record(), run_cell): cell for cell in cells}
        while running:
            (done, *_), _ = ray.wait(list(running), num_returns=1)
            cell = running.pop(done)
            try:
                yield Outcome.from_bytes(ray.get(done))
            except ray.exceptions.RayError as error:
                yield failure(cell, error)
    finally:
        ray.shutdown()


def _compute(record: dict[str, Any], run_cell: str) -> bytes:
    with tempfile.TemporaryDirectory(prefix="fedsieve-") as folder:
        return compute(Cell.from_record(record), Path(folder), run_cell=run_cell)
