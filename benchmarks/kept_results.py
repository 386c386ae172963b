"""Results that took long to make, kept as they come, a JSON line each: an interrupted run goes on where it stopped."""

import json
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from rich.console import Console


def kept(path: Path) -> list[Any]:
    """Return the results that an earlier run has kept in `path`, in any order; none if there was no such run."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def map_and_keep(
    pool: ProcessPoolExecutor,
    work: Callable[..., Any],
    tasks: Iterable[Any],
    path: Path,
    console: Console,
    *,
    told_every: int = 1,
) -> list[Any]:
    """Return what `work` makes of each task, in their order; each is appended to `path` as soon as it is there.

    Without tasks there is no file. told_every: after how many a line is printed.
    """
    todo: list[Future[Any]] = [pool.submit(work, task) for task in tasks]
    if not todo:
        return []
    try:
        with path.open("a") as file:
            for number, future in enumerate(as_completed(todo), 1):
                file.write(json.dumps(future.result()) + "\n")
                file.flush()
                if number % told_every == 0 or number == len(todo):
                    console.print(f"{path.stem}: {number} of {len(todo)}")
    finally:
        for future in todo:
            future.cancel()
    return [future.result() for future in todo]
